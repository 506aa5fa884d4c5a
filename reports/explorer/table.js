// The table's cells, each a link to the images that it is of.
let tableOf = null;

function link(change, label, text, className) {
  const first = { category: "", challenge: "", words: "", sort: "", of: null, against: null, order: "", page: 1, open: "" };
  const target = { ...first, view: "images", prompts: state.prompts, ...change };
  return element("a", { href: address(target), "aria-label": label, class: className }, text);
}

function cellLink(row, metric) {
  const text = row.cells[metric];
  if (text === undefined) return "";
  const [name, order] = BEHIND[metric] ?? ["", ""];
  const sorted = name !== "" && hasScore(data.images[row.images], name) ? { sort: name, of: row.images, order } : {};
  const label = `${data.metrics[metric]} ${text}: images of ${row.system}, ${stepsText(row.steps)}`;
  return link({ systems: [row.images], ...sorted }, label, text, "cell");
}

function findingsOf(rows) {
  const found = new Map();
  for (const row of rows.filter((each) => each.finding !== null)) found.set(row.finding.claim, [row.finding.verdict, row.steps]);
  return [...found].map(([claim, [verdict, steps]]) => {
    const systems = [...new Set(rows.filter((row) => row.steps === steps).map((row) => row.images))];
    return element("p", { class: "finding" }, element("span", { class: "verdict" }, verdict), link({ systems }, `${claim}: ${verdict}. Its images`, claim));
  });
}

function groupTable(group, rows) {
  const metrics = Object.keys(data.metrics).filter((name) => rows.some((row) => name in row.cells));
  const head = element("tr", {}, element("th", { scope: "col" }, "System"), element("th", { scope: "col" }, "Steps"), ...metrics.map((name) => element("th", { scope: "col" }, data.metrics[name])));
  const lines = rows.map((row) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, link({ systems: [row.images] }, `Images of ${row.system}, ${stepsText(row.steps)}`, row.system)),
      element("td", { "data-title": "Steps" }, `${row.steps}`),
      ...metrics.map((name) => element("td", { "data-title": data.metrics[name] }, cellLink(row, name))),
    ),
  );
  const systems = [...new Set(rows.map((row) => row.images))];
  const title = element("h2", {}, group);
  const all = link({ systems }, `All rows of ${group} side by side`, "Side by side", "all");
  return element("section", {}, element("div", { class: "title" }, title, all), ...findingsOf(rows), element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines)));
}

function showTable() {
  if (tableOf === state.prompts) return;
  tableOf = state.prompts;
  at("tables").replaceChildren(...[...groupsOf(state.prompts)].map(([group, rows]) => groupTable(group, rows)));
}
