// One prompt enlarged: the images of all chosen systems, what the prompt asks for and what the oracle sees.
function enlarged(number, prompt, k) {
  const images = data.images[number];
  const canvas = picture(images, prompt, k);
  const count = state.systems.length;
  const room = Math.min(innerWidth * 0.94 - 48, 1232);
  const most = Math.max(160, Math.min(512, innerHeight * 0.55, room / Math.min(count, Math.max(1, Math.floor(room / 200))) - 20));
  // Small images by whole factors, so that every pixel is as large as the next.
  const width = images.lossless ? Math.max(1, Math.floor(most / images.side)) * images.side : Math.min(most, images.side * 2);
  canvas.style.width = `${width}px`;
  const facts = [["Image seed", images.seeds?.[k] ?? prompt.seed]];
  if (images.training_seed !== undefined) facts.push(["Training seed", `${images.training_seed}`]);
  for (const name of ["clip_score", "fid_influence"]) {
    if (score(images, name, k) !== null) facts.push([SCORES[name].title, `${score(images, name, k)}`]);
  }
  if (score(images, "alignment", k) !== null) facts.push([SCORES.alignment.title, score(images, "alignment", k) ? "yes" : "no"]);
  const list = element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  const found = attributes(images, prompt, k);
  const answers = found.length
    ? element(
        "table",
        { class: "answers" },
        element("thead", {}, element("tr", {}, ...["Attribute", "Asked", "Seen"].map((text) => element("th", { scope: "col" }, text)))),
        element("tbody", {}, ...found.map(([group, asked, seen, right]) => element("tr", { class: right ? "right" : "wrong" }, element("th", { scope: "row" }, group), element("td", {}, asked), element("td", {}, `${right ? "✓" : "✕"} ${seen}`)))),
      )
    : null;
  return element("figure", { "data-images": number }, canvas, element("figcaption", {}, element("b", {}, nameOf(images)), list, answers));
}

function showLarge() {
  const dialog = at("large");
  if (state.open === "" || state.view !== "images") {
    if (dialog.open) dialog.close();
    return;
  }
  const { prompts } = setOf(state.prompts);
  const k = prompts.findIndex((prompt) => prompt.id === state.open);
  const prompt = prompts[k];
  at("large-title").textContent = prompt.text;
  at("large-meta").textContent = [prompt.id, prompt.category, prompt.challenge].filter((text) => text !== null).join(" · ");
  at("large-images").replaceChildren(...state.systems.map((number) => enlarged(number, prompt, k)));
  const place = shown.indexOf(k);
  at("large-place").textContent = place === -1 ? "not among those found" : `${place + 1} of ${shown.length}`;
  at("large-previous").disabled = place <= 0;
  at("large-next").disabled = place === -1 || place === shown.length - 1;
  if (!dialog.open) {
    dialog.showModal();
    at("large-title").focus();
  }
  dialog.scrollTop = 0;
}

function turn(by) {
  const { prompts } = setOf(state.prompts);
  const place = shown.indexOf(prompts.findIndex((prompt) => prompt.id === state.open)) + by;
  if (place < 0 || place >= shown.length) return;
  go({ open: prompts[shown[place]].id, page: Math.floor(place / PAGE) + 1 }, true);
}
