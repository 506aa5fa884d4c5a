// Which prompts, in which order. ExplorerReference in tests/support/explorer.py does the same in Python.

// The pieces of a search in lower case: words, and what stands between quotation marks.
function pieces(words) {
  return [...words.toLowerCase().matchAll(/"([^"]*)"|(\S+)/g)].map((found) => found[1] ?? found[2]).filter((text) => text !== "");
}

function difference(state, k) {
  const [a, b] = [state.of, state.against].map((number) => score(data.images[number], state.sort, k));
  return a === null || b === null ? null : a - b;
}

// The places of the prompts in their set; those without a score come last, equal ones in the set's order.
function places(state) {
  const { prompts } = setOf(state.prompts);
  const wanted = pieces(state.words);
  const found = [...prompts.keys()].filter((k) => {
    const prompt = prompts[k];
    if (state.category !== "" && prompt.category !== state.category) return false;
    if (state.challenge !== "" && prompt.challenge !== state.challenge) return false;
    const text = prompt.text.toLowerCase();
    return wanted.every((piece) => text.includes(piece));
  });
  if (state.sort === "") return found;
  const value = (k) => (state.against === null ? score(data.images[state.of], state.sort, k) : difference(state, k));
  const key = (k) => {
    const found = value(k);
    if (found === null) return Infinity;
    return state.order === "low" ? found : -(state.order === "either" ? Math.abs(found) : found);
  };
  const keys = new Map(found.map((k) => [k, key(k)]));
  return found.sort((a, b) => (keys.get(a) < keys.get(b) ? -1 : keys.get(a) > keys.get(b) ? 1 : a - b));
}
