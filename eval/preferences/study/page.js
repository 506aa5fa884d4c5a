// The page itself: one comparison at a time. Texts enter through textContent alone, never as markup.
const GUARD = 300; // ms after images appear in which no answer counts: a double click must not answer twice
const TITLES = { quality: "Looks", alignment: "Fit to the text" };
const at = (id) => document.getElementById(id);
let rater = "";
let trials = [];
let prompts = {};
let answers = {};
let current = null; // the trial on screen, once both its images are
let shownAt = 0;
let busy = false;
let round = 0;

function say(text) {
  at("live").textContent = text;
}

transport.tell = () => {
  const text = transport.warning();
  at("notice").hidden = text === "";
  if (at("notice").textContent !== text) at("notice").textContent = text;
};

function only(section) {
  for (const id of ["start", "trial", "end"]) at(id).hidden = id !== section;
  at("progress").hidden = at("footer").hidden = section === "start";
}

async function decoded(code) {
  const image = new Image();
  image.src = transport.source(code);
  await image.decode();
  return image.src;
}

// The first comparison without an answer; where there is none, the end.
async function show(focus) {
  const mine = ++round;
  current = null;
  const done = trials.filter((trial) => answers[trial.id] !== undefined).length;
  const trial = trials.find((each) => answers[each.id] === undefined);
  at("bar").max = trials.length;
  at("bar").value = done;
  at("count").textContent = `${done} of ${trials.length}`;
  for (const button of document.querySelectorAll(".undo")) button.disabled = done === 0;
  transport.tell();
  if (trial === undefined) {
    only("end");
    at("end-title").focus();
    return;
  }
  const sides = trial.left === "a" ? [trial.image_a, trial.image_b] : [trial.image_b, trial.image_a];
  let sources = null;
  while (sources === null) {
    try {
      sources = await Promise.all(sides.map(decoded));
    } catch {
      at("notice").hidden = false;
      at("notice").textContent = "An image does not load. It is tried again.";
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    if (mine !== round) return;
  }
  transport.tell();
  const { title, hint } = config.questions[trial.question];
  at("trial").dataset.question = trial.question;
  at("kind").textContent = TITLES[trial.question] ?? trial.question;
  at("question").textContent = title;
  at("hint").textContent = hint;
  at("prompt").textContent = prompts[trial.prompt_id];
  at("left-image").src = sources[0];
  at("right-image").src = sources[1];
  at("trial").dataset.trial = trial.id;
  only("trial");
  if (focus) at("question").focus();
  say(`Comparison ${done + 1} of ${trials.length}. ${title} Text: ${prompts[trial.prompt_id]}`);
  current = trial;
  shownAt = performance.now();
  const following = trials.find((each) => each !== trial && answers[each.id] === undefined);
  if (following) [following.image_a, following.image_b].forEach((code) => decoded(code).catch(() => {}));
}

// Runs one change at a time; where it is refused, takes over what the server has.
async function change(action) {
  busy = true;
  at("pair").setAttribute("aria-busy", "true");
  try {
    await action();
  } catch (error) {
    await enter(rater, true);
    at("notice").hidden = false;
    at("notice").textContent = `${error.message} The page now shows what is saved.`;
    return;
  } finally {
    busy = false;
    at("pair").removeAttribute("aria-busy");
  }
  await show(false);
}

function choose(side) {
  if (busy || current === null || performance.now() - shownAt < GUARD || (side === "tie" && !config.ties)) return;
  const trial = current;
  const winner = side === "tie" ? "tie" : (side === "left") === (trial.left === "a") ? "a" : "b";
  change(async () => {
    await transport.vote(trial, winner);
    answers[trial.id] = winner;
  });
}

function undo() {
  const last = trials.findLast((trial) => answers[trial.id] !== undefined);
  if (busy || last === undefined) return;
  current = null;
  change(async () => {
    await transport.undo(last);
    delete answers[last.id];
  });
}

async function enter(name, resume) {
  ({ trials, prompts, answers } = await transport.join(name, resume));
  rater = name;
  at("who").textContent = `Rater: ${rater}`;
  await show(true);
}

// The same rule as rater_name in plan.py.
const allowed = /^[\p{L}\p{N}][\p{L}\p{M}\p{N} ._'-]{0,39}$/u;
const damaged = new RegExp(`^(?:${config.no_name})$`, "i");
let offered = "";

async function begin(event) {
  event.preventDefault();
  if (busy) return;
  const name = at("name").value.trim().normalize("NFC");
  if (!allowed.test(name) || damaged.test(name)) {
    at("name-error").textContent = allowed.test(name)
      ? "A spreadsheet takes this name for a date, a number or nothing. Please choose another one."
      : "Please use letters, digits, spaces and . _ ' - and start with a letter or digit.";
    at("name").focus();
    return;
  }
  busy = true;
  at("name-error").textContent = "";
  try {
    await enter(name, offered === name);
  } catch (error) {
    // The same name again means: yes, that was me.
    offered = error.known ? name : "";
    at("begin").textContent = error.known ? "Continue as this rater" : "Begin";
    at("name-error").textContent = error.message;
  } finally {
    busy = false;
  }
}

const KEYS = { 1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right", 0: "tie", t: "tie" };
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || !at("keys").checked || !at("start").hidden) return;
  if (event.target.id === "keys" && event.key === " ") return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in KEYS && !at("trial").hidden) {
    event.preventDefault();
    if (!event.repeat) choose(KEYS[key]);
  } else if (key === "u" || key === "Backspace") {
    event.preventDefault();
    if (!event.repeat) undo();
  }
});
for (const side of ["left", "right", "tie"]) {
  // detail is 2 for the second click of a double click.
  at(side).addEventListener("click", (event) => event.detail < 2 && choose(side));
}
for (const button of document.querySelectorAll(".undo")) {
  button.addEventListener("click", (event) => event.detail < 2 && undo());
}
for (const button of document.querySelectorAll(".download")) {
  button.hidden = !transport.downloads;
  if (transport.downloads) button.addEventListener("click", () => transport.download());
}
at("name").addEventListener("input", () => {
  if (at("name").value.trim() !== offered) at("begin").textContent = "Begin";
});
at("form").addEventListener("submit", begin);
at("leave").hidden = transport.leave === undefined;
at("leave").addEventListener("click", () => {
  if (transport.leave()) location.reload();
});
addEventListener("beforeunload", (event) => {
  if (transport.warning() !== "") event.preventDefault();
});
transport.watch((found) => {
  answers = found;
  if (at("start").hidden) show(false);
});

document.body.classList.toggle("no-ties", !config.ties);
document.body.classList.toggle("pixelated", config.pixelated);
at("keeping").textContent = transport.keeping;
at("end-text").textContent = transport.ended;
at("total").textContent = transport.total ? `${transport.total} comparisons. ` : "";
at("name").value = transport.suggested;
only("start");
transport.tell();
if (transport.remembered() !== "") {
  at("name").value = transport.remembered();
  enter(transport.remembered(), true).catch((error) => {
    at("name-error").textContent = error.message;
  });
}
