// What is shown, as the address says it: #prompts=parti&systems=NAME@1,NAME@4&words=...&sort=clip_score&of=NAME@1
const FIELDS = ["view", "prompts", "systems", "category", "challenge", "words", "sort", "of", "against", "order", "page", "open"];

const reference = (number) => `${encodeURIComponent(data.images[number].system)}@${data.images[number].steps}`;

// The images that NAME@STEPS is, of a prompt set; undefined where there are none.
function lookUp(text, prompts) {
  const cut = text.lastIndexOf("@");
  const [system, steps] = [decodeURIComponent(text.slice(0, cut)), Number(text.slice(cut + 1))];
  return rowsOf(prompts).find((row) => row.system === system && row.steps === steps)?.images;
}

function address(state) {
  const texts = { ...state, systems: state.systems.map(reference).join(",") };
  for (const name of ["of", "against"]) texts[name] = state[name] === null ? "" : reference(state[name]);
  for (const name of ["prompts", "category", "challenge", "words", "open"]) texts[name] = encodeURIComponent(state[name]);
  if (state.view === "images") texts.view = "";
  if (state.page === 1) texts.page = "";
  if (state.sort === "") texts.of = texts.against = texts.order = "";
  // Without systems the word stays: no systems are chosen, which is not the same as the first view.
  return `#${FIELDS.filter((name) => texts[name] !== "" || name === "systems").map((name) => `${name}=${texts[name]}`).join("&")}`;
}

// The state of an address, whole, and what of it this page does not have.
function parsed(hash) {
  const problems = [];
  const given = {};
  for (const part of hash.replace(/^#/, "").split("&").filter((text) => text !== "")) {
    const [name, value] = [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)];
    if (FIELDS.includes(name)) given[name] = value;
    else problems.push(part);
  }
  const text = (name) => {
    try {
      return decodeURIComponent(given[name] ?? "");
    } catch {
      problems.push(given[name]);
      return "";
    }
  };
  const oneOf = (name, known, otherwise) => {
    const value = text(name);
    if (value === "" || known.includes(value)) return value || otherwise;
    problems.push(value);
    return otherwise;
  };
  const prompts = oneOf("prompts", data.sets.map((set) => set.name), data.sets[0].name);
  const set = setOf(prompts);
  const images = (value) => {
    let found;
    try {
      found = lookUp(value, prompts);
    } catch {} // a broken escape names nothing
    if (found === undefined) problems.push(value);
    return found ?? null;
  };
  const kinds = (field) => [...new Set(set.prompts.map((prompt) => prompt[field]))];
  const listed = (given.systems ?? "").split(",").filter((value) => value !== "").map(images);
  const systems = given.systems === undefined ? firstOf(prompts) : [...new Set(listed.filter((k) => k !== null))];
  const state = {
    view: oneOf("view", ["images", "table"], "images"),
    prompts,
    systems,
    category: oneOf("category", kinds("category"), ""),
    challenge: oneOf("challenge", kinds("challenge"), ""),
    words: text("words"),
    sort: oneOf("sort", Object.keys(SCORES), ""),
    of: given.of ? images(given.of) : null,
    against: given.against ? images(given.against) : null,
    page: Math.max(1, Math.floor(Number(text("page")) || 1)),
    open: oneOf("open", set.prompts.map((prompt) => prompt.id), ""),
  };
  if (state.sort !== "") {
    state.of ??= systems.find((number) => hasScore(data.images[number], state.sort)) ?? null;
    const lacking = [state.of, state.against].filter((number) => number !== null && !hasScore(data.images[number], state.sort));
    if (state.of === null || lacking.length) {
      problems.push(`${SCORES[state.sort].title} of ${lacking.length ? nameOf(data.images[lacking[0]]) : "these systems"}`);
      state.sort = "";
    }
  }
  if (state.sort === "") state.of = state.against = null;
  state.order = oneOf("order", state.against === null ? ["low", "high"] : ["either", "high", "low"], state.against === null ? "low" : "either");
  return [state, problems];
}

let state = null;

// Shows another state: the address changes, and the page follows it (main.js). quietly: without a step in the history.
function go(change, quietly = false) {
  const listed = ["page", "open", "view"].some((name) => name in change) ? state : { ...state, page: 1 };
  const next = address({ ...listed, ...change });
  if (quietly) location.replace(next);
  else location.hash = next;
}
