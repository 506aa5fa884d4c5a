// The list: filters, and for each prompt the images of the chosen systems side by side.
const SMALLEST = 100; // pixels of a tile on the screen; where columns would be narrower, tiles wrap and carry names
let shown = []; // the places of all prompts found

function options(select, entries, value) {
  select.replaceChildren(...entries.map(([key, text]) => element("option", { value: key, selected: key === value }, text)));
  select.value = value;
}

function showFilters() {
  const set = setOf(state.prompts);
  for (const field of ["category", "challenge"]) {
    const counts = new Map();
    for (const prompt of set.prompts) if (prompt[field] !== null) counts.set(prompt[field], (counts.get(prompt[field]) ?? 0) + 1);
    options(at(field), [["", "All"], ...[...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, n]) => [name, `${name} (${n})`])], state[field]);
    at(field).parentElement.hidden = counts.size === 0;
  }
  const everything = imagesOf(state.prompts);
  const having = (name) => everything.filter((number) => hasScore(data.images[number], name));
  const scores = Object.keys(SCORES).filter((name) => having(name).length > 0);
  options(at("sort"), [["", "Prompt order"], ...scores.map((name) => [name, SCORES[name].title])], state.sort);
  for (const field of document.querySelectorAll(".sorted")) field.hidden = state.sort === "";
  if (state.sort !== "") {
    const systems = having(state.sort).map((number) => [`${number}`, nameOf(data.images[number])]);
    options(at("of"), systems, `${state.of}`);
    options(at("against"), [["", "no other"], ...systems.filter(([number]) => number !== `${state.of}`)], state.against === null ? "" : `${state.against}`);
    const orders = [["low", "lowest"], ["high", "highest"]];
    const apart = [["either", "largest difference"], ["high", "first above second"], ["low", "first below second"]];
    options(at("order"), state.against === null ? orders : apart, state.order);
  }
  if (at("words").value !== state.words) at("words").value = state.words;
  at("reset").hidden = state.words + state.category + state.challenge + state.sort === "";
}

// One mark an attribute: filled where the oracle sees what is asked.
function marks(found) {
  return element("span", { class: "marks", "aria-hidden": "true" }, ...found.map(([group, asked, seen, right]) => element("i", { class: right ? "right" : "wrong", title: right ? `${group}: ${seen}` : `${group}: ${seen}, not ${asked}` })));
}

function caption(images, prompt, k) {
  const lines = [element("span", { class: "who" }, nameOf(images))];
  for (const name of ["clip_score", "fid_influence"]) {
    const value = score(images, name, k);
    if (value === null || (name !== "clip_score" && state.sort !== name)) continue;
    const title = name === "clip_score" ? "CLIP" : "FID infl.";
    lines.push(element("span", { class: "score", "data-score": name }, `${title} `, element("b", {}, value.toFixed(SCORES[name].decimals))));
  }
  const found = attributes(images, prompt, k);
  const wrong = found.filter((each) => !each[3]);
  if (found.length) lines.push(element("span", { class: "oracle" }, marks(found), element("span", { class: "count" }, `${found.length - wrong.length}/${found.length}`)));
  else if (score(images, "alignment", k) !== null) lines.push(element("span", { class: "oracle" }, score(images, "alignment", k) ? "all right" : "not all right"));
  if (wrong.length) lines.push(element("span", { class: "faults" }, wrong.map(([group]) => group).join(", ")));
  return element("figcaption", {}, ...lines);
}

function tile(number, prompt, k) {
  const images = data.images[number];
  const button = element("button", { type: "button", class: "tile" }, picture(images, prompt, k));
  button.addEventListener("click", () => go({ open: prompt.id }));
  const other = images.seeds !== null && images.seeds[k] !== prompt.seed;
  const figure = element("figure", { "data-images": number }, button, caption(images, prompt, k));
  if (other) figure.lastChild.append(element("span", { class: "faults" }, "other seed"));
  return figure;
}

function promptItem(k, number) {
  const prompt = setOf(state.prompts).prompts[k];
  const meta = [`${k + 1}`, prompt.id, prompt.category, prompt.challenge].filter((text) => text !== null);
  if (state.against !== null && difference(state, k) !== null) meta.push(`difference ${difference(state, k).toFixed(3)}`);
  const title = element("h3", { id: `prompt-${number}`, dir: "auto" }, prompt.text);
  const words = element("div", { class: "what" }, title, element("p", { class: "meta" }, ...meta.map((text) => element("span", {}, text))));
  const tiles = element("div", { class: "tiles" }, ...state.systems.map((each) => tile(each, prompt, k)));
  return element("li", { class: "prompt", tabindex: -1, "data-place": k, "aria-labelledby": title.id }, words, tiles);
}

function legendItem(number) {
  const images = data.images[number];
  const row = data.rows.find((each) => each.images === number);
  const cells = Object.entries(row.cells).map(([name, text]) => `${data.metrics[name]} ${text}`);
  return element("div", { class: "column", title: cells.join("\n") }, element("b", {}, images.system), element("span", {}, stepsText(images.steps)), element("small", {}, cells[0] ?? ""));
}

// Names stand above the columns where these are wide enough, else below each image.
function layOut() {
  const box = at("results");
  const beside = box.clientWidth >= 760;
  const width = box.clientWidth - (beside ? 216 : 0);
  const aligned = state.systems.length * (SMALLEST + 8) <= width;
  box.classList.toggle("beside", beside);
  box.classList.toggle("aligned", aligned);
  box.style.setProperty("--columns", Math.max(1, state.systems.length));
}

function showImages() {
  showFilters();
  shown = places(state);
  const set = setOf(state.prompts);
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  const page = Math.min(state.page, pages);
  layOut();
  at("legend").replaceChildren(...state.systems.map(legendItem));
  const chosen = state.systems.length;
  const there = chosen ? shown.slice((page - 1) * PAGE, page * PAGE) : [];
  at("list").replaceChildren(...there.map(promptItem));
  at("list").start = (page - 1) * PAGE + 1;
  const count = `${shown.length} of ${set.prompts.length} prompts, ${chosen} system${chosen === 1 ? "" : "s"}`;
  const say = chosen === 0 ? "Choose a system to see its images." : shown.length === 0 ? "No prompt matches; clear a filter." : count;
  if (at("status").textContent !== say) at("status").textContent = say;
  at("page").textContent = `Page ${page} of ${pages}`;
  at("previous").disabled = page === 1;
  at("next").disabled = page === pages;
  at("pager").hidden = pages === 1 || chosen === 0;
}

// Moves the focus to the next (1) or previous (-1) prompt, over the edges of pages.
let wanted = null; // the place of the prompt that gets the focus when its page is shown
function step(by) {
  const items = [...at("list").children];
  const here = items.indexOf(document.activeElement?.closest("li.prompt"));
  const next = items[here === -1 ? (by > 0 ? 0 : items.length - 1) : here + by];
  if (next !== undefined) focusItem(next);
  else {
    const page = Math.ceil((shown.indexOf(Number(items.at(-1)?.dataset.place)) + 1) / PAGE) + by;
    if (page < 1 || page > Math.ceil(shown.length / PAGE)) return;
    wanted = shown[by > 0 ? (page - 1) * PAGE : page * PAGE - 1];
    go({ page });
  }
}

function focusItem(item) {
  item.focus({ preventScroll: true });
  item.scrollIntoView({ block: "center" });
}
