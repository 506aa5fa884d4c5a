// The list of systems: one line a system of each sub-table, one box for each number of steps.
let chooserOf = null; // the prompt set whose systems are listed

function groupsOf(prompts) {
  const groups = new Map();
  for (const row of rowsOf(prompts)) {
    if (!groups.has(row.group)) groups.set(row.group, []);
    groups.get(row.group).push(row);
  }
  return groups;
}

function listSystems(prompts) {
  chooserOf = prompts;
  at("systems").replaceChildren(
    ...[...groupsOf(prompts)].map(([group, rows]) => {
      const lines = new Map();
      for (const row of rows) lines.set(row.system, [...(lines.get(row.system) ?? []), row]);
      return element("fieldset", {}, element("legend", {}, group), ...[...lines].map(([system, ofSystem]) => systemLine(system, ofSystem)));
    }),
  );
}

function systemLine(system, rows) {
  const boxes = rows.map((row) => {
    const box = element("input", { type: "checkbox", value: row.images, "aria-label": `${system}, ${stepsText(row.steps)}` });
    box.addEventListener("change", () => {
      const others = state.systems.filter((number) => number !== row.images);
      // In the order of the table, whatever the order of the clicks.
      go({ systems: box.checked ? [...others, row.images].sort((a, b) => a - b) : others, page: state.page });
    });
    return element("label", { class: "steps", title: stepsText(row.steps) }, box, element("span", { "aria-hidden": "true" }, `${row.steps}`));
  });
  return element("div", { class: "line" }, element("span", { class: "name" }, system), element("span", { class: "boxes" }, ...boxes));
}

function showChooser() {
  if (chooserOf !== state.prompts) listSystems(state.prompts);
  for (const box of at("systems").querySelectorAll("input")) box.checked = state.systems.includes(Number(box.value));
  at("chosen").textContent = `${state.systems.length} chosen`;
  at("clear").disabled = state.systems.length === 0;
}
