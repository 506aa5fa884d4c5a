// The page follows its address.
let drawn = ""; // the address of the list on the screen, without what is enlarged

function show() {
  const [found, problems] = parsed(location.hash);
  state = found;
  at("problem").hidden = problems.length === 0;
  at("problem").textContent = problems.length ? `The address names what this page does not have: ${problems.join(", ")}.` : "";
  document.title = `Explorer: ${state.view === "table" ? "table" : state.prompts}`;
  options(at("set"), data.sets.map((set) => [set.name, set.prompts.length < set.of ? `${set.name}, first ${set.prompts.length} of ${set.of}` : `${set.name}, ${set.prompts.length}`]), state.prompts);
  for (const view of ["images", "table"]) {
    at(`${view}-view`).hidden = view !== state.view;
    at(`to-${view}`).href = address({ ...state, view, open: "" });
    if (view === state.view) at(`to-${view}`).setAttribute("aria-current", "page");
    else at(`to-${view}`).removeAttribute("aria-current");
  }
  if (state.view === "table") showTable();
  else {
    showChooser();
    const listed = address({ ...state, open: "" });
    if (listed !== drawn) showImages();
    drawn = listed;
  }
  showLarge();
  const item = wanted === null ? null : at("list").querySelector(`[data-place="${wanted}"]`);
  if (item !== null) focusItem(item);
  wanted = null;
}

for (const field of ["category", "challenge", "order"]) at(field).addEventListener("change", () => go({ [field]: at(field).value }));
at("sort").addEventListener("change", () => {
  const name = at("sort").value;
  const having = (number) => name !== "" && number !== null && hasScore(data.images[number], name);
  const of = [state.of, ...state.systems, ...imagesOf(state.prompts)].find(having) ?? null;
  go({ sort: name, of, against: having(state.against) ? state.against : null, order: state.sort === "" ? "" : state.order });
});
at("of").addEventListener("change", () => {
  const of = Number(at("of").value);
  go(of === state.against ? { of, against: null, order: "" } : { of });
});
at("against").addEventListener("change", () => go({ against: at("against").value === "" ? null : Number(at("against").value), order: "" }));
at("set").addEventListener("change", () => {
  // The same systems of the other set, where it has them.
  const prompts = at("set").value;
  const there = state.systems.map((number) => lookUp(reference(number), prompts)).filter((number) => number !== undefined);
  const first = { category: "", challenge: "", sort: "", of: null, against: null, order: "", page: 1, open: "" };
  go({ ...first, prompts, systems: there.length ? there : firstOf(prompts) });
});
at("words").addEventListener("input", () => go({ words: at("words").value }, true));
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("clear").addEventListener("click", () => go({ systems: [] }));
at("reset").addEventListener("click", () => {
  go({ words: "", category: "", challenge: "", sort: "", of: null, against: null, order: "" });
  at("words").focus();
});
for (const [id, by] of [["previous", -1], ["next", 1]]) {
  at(id).addEventListener("click", () => {
    go({ page: Math.min(state.page, Math.ceil(shown.length / PAGE)) + by });
    at("results").scrollIntoView();
  });
  at(`large-${id}`).addEventListener("click", () => turn(by));
}
at("skip").addEventListener("click", (event) => {
  event.preventDefault();
  const target = state.view === "table" ? at("table-view") : at("list").firstElementChild ?? at("images-view");
  target.focus();
});
at("help-button").addEventListener("click", () => at("help").showModal());
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  // A click beside the dialog is on the dialog itself.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}
at("large").addEventListener("close", () => {
  if (state.open === "") return;
  wanted = setOf(state.prompts).prompts.findIndex((prompt) => prompt.id === state.open);
  go({ open: "" }, true);
});

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || at("help").open) return;
  const arrow = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (event.target.matches("input:not([type=checkbox]), select")) {
    if (event.key === "Escape") event.target.blur();
  } else if (arrow !== undefined && state.view === "images") {
    event.preventDefault();
    (at("large").open ? turn : step)(arrow);
  } else if (event.key === "Enter" && event.target.matches("li.prompt")) {
    go({ open: setOf(state.prompts).prompts[Number(event.target.dataset.place)].id });
  } else if (at("keys").checked && !at("large").open && (event.key === "/" || event.key === "?")) {
    event.preventDefault();
    if (event.key === "?") at("help").showModal();
    else if (state.view === "images") at("words").focus();
  }
});
addEventListener("hashchange", show);
addEventListener("resize", () => {
  if (state.view === "images") layOut();
});

at("notice").hidden = data.notice === null;
at("notice").textContent = data.notice ?? "";
at("chooser").open = matchMedia("(min-width: 60rem)").matches;
const large = data.images.filter((images) => !images.lossless);
const sides = [...new Set(large.map((images) => `${images.resolution} pixels a side are shown at ${images.side}`))];
at("about").textContent = [
  sides.length ? `Compressed with losses: images of ${sides.join(", of ")}; the scores are of the originals.` : "Every image is shown pixel by pixel, without losses.",
  data.reduced === null ? "" : `Fewer prompts than the ${data.reduced} asked for, to keep the file small.`,
  "This page loads nothing from the network.",
].filter((text) => text !== "").join(" ");
show();
