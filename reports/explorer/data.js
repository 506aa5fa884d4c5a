// What the page knows, and small helpers. Texts enter through textContent and attributes alone, never as markup.
const at = (id) => document.getElementById(id);
const data = JSON.parse(at("config").textContent);
const PAGE = 20; // prompts on one page of the list
const SCORES = {
  clip_score: { title: "CLIP score", decimals: 3 },
  alignment: { title: "All right", decimals: 0 },
  attributes: { title: "Attributes right", decimals: 3 },
  fid_influence: { title: "FID influence", decimals: 3 },
};
// The score of an image behind a metric of the table, and which end is the bad one.
const BEHIND = { fid: ["fid_influence", "high"], clip_score: ["clip_score", "low"], alignment: ["alignment", "low"] };

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const stepsText = (steps) => `${steps} step${steps === 1 ? "" : "s"}`;
const nameOf = (images) => `${images.system}, ${stepsText(images.steps)}`;
const setOf = (name) => data.sets.find((set) => set.name === name);
const rowsOf = (name) => data.rows.filter((row) => row.prompts === name);
const imagesOf = (name) => [...new Set(rowsOf(name).map((row) => row.images))];
// What a set opens with: two systems that stand in most groups, as a table's default does; else the first two.
const firstOf = (name) => {
  const groups = (images) => rowsOf(name).filter((row) => row.images === images).length;
  return imagesOf(name).sort((one, other) => groups(other) - groups(one)).slice(0, 2);
};

// [group, asked, seen, right] for each attribute that the prompt states.
function attributes(images, prompt, k) {
  if (prompt.asked === null) return [];
  return Object.entries(prompt.asked)
    .filter(([group, asked]) => asked !== null && group in images.answers)
    .map(([group, asked]) => [group, asked, images.answers[group][k], images.answers[group][k] === asked]);
}

// A score of the k-th image of a set; null where there is none.
function score(images, name, k) {
  if (name !== "attributes") return images.scores[name]?.[k] ?? null;
  const found = attributes(images, setOf(images.prompts).prompts[k], k);
  return found.length ? found.filter((each) => each[3]).length / found.length : null;
}

const hasScore = (images, name) => score(images, name, 0) !== null;

const sheets = new Map();
function sheet(number) {
  if (!sheets.has(number)) {
    const image = new Image();
    image.src = `data:image/webp;base64,${at(`sheet-${number}`).textContent}`;
    sheets.set(number, image.decode().then(() => image));
  }
  return sheets.get(number);
}

// What a screen reader says of an image.
function alternative(images, prompt, k) {
  const parts = [`${nameOf(images)}: ${prompt.text}.`];
  const clip = score(images, "clip_score", k);
  if (clip !== null) parts.push(`CLIP score ${clip.toFixed(3)}.`);
  const found = attributes(images, prompt, k);
  const wrong = found.filter((each) => !each[3]);
  if (found.length) parts.push(`Oracle: ${found.length - wrong.length} of ${found.length} attributes right.`);
  if (wrong.length) parts.push(`Wrong: ${wrong.map(([group, asked, seen]) => `${group} ${seen}, not ${asked}`).join("; ")}.`);
  return parts.join(" ");
}

function picture(images, prompt, k) {
  const canvas = element("canvas", {
    width: images.side,
    height: images.side,
    role: "img",
    "aria-label": alternative(images, prompt, k),
    class: images.lossless ? "pixels" : null,
  });
  const place = k % data.tiles;
  const [left, top] = [(place % data.columns) * images.side, Math.floor(place / data.columns) * images.side];
  sheet(images.sheets[Math.floor(k / data.tiles)]).then((image) => {
    canvas.getContext("2d").drawImage(image, left, top, images.side, images.side, 0, 0, images.side, images.side);
    canvas.dataset.drawn = "";
  });
  return canvas;
}
