// Transport of the served page: an answer counts when the server has confirmed it, and is sent again until then.
const config = JSON.parse(document.getElementById("config").textContent);
const place = `preferences:${config.study}:server`;
let kept = { rater: "", pending: null };
let failing = "";

function recall() {
  try {
    kept = JSON.parse(localStorage.getItem(place)) ?? kept;
  } catch {
    // Without storage a reloaded page asks for the name again; the answers are on the server.
  }
}

function keep() {
  try {
    localStorage.setItem(place, JSON.stringify(kept));
  } catch {
    // As above.
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// crypto.randomUUID is not there on a plain http address of a local network.
const newKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

// The server's answer, however long that takes. Refusals (4xx) are answers; no connection and 5xx are not.
async function post(path, body) {
  for (let wait = 250; ; wait = Math.min(2 * wait, 5000)) {
    try {
      const response = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(10000),
      });
      if (response.status < 500) {
        const content = await response.json();
        failing = "";
        transport.tell();
        return { status: response.status, content };
      }
    } catch {
      // Tried again below.
    }
    failing = "The study's server does not answer. Your last answer is kept and sent again until it is saved.";
    transport.tell();
    await pause(wait);
  }
}

// At most one answer is on its way, kept in the browser with its key: sent twice, it counts once.
async function send(path, body) {
  kept.pending = { path, body: { ...body, rater: kept.rater, key: newKey() } };
  keep();
  const { status, content } = await post(path, kept.pending.body);
  kept.pending = null;
  keep();
  if (status !== 200) throw new Error(content.error);
}

recall();
const transport = {
  suggested: "",
  total: 0,
  keeping: "Every answer is saved at once. You may stop at any time and go on later under the same name.",
  ended: "All your answers are saved. You may close this page.",
  downloads: false,
  tell() {},
  remembered: () => kept.rater,
  watch() {},
  async join(rater, resume) {
    if (kept.pending !== null) {
      await post(kept.pending.path, kept.pending.body);
      kept.pending = null;
    }
    const { status, content } = await post("/api/join", { rater, resume });
    if (status !== 200) throw Object.assign(new Error(content.error), { known: content.known === true });
    kept.rater = content.rater;
    keep();
    return content;
  },
  vote: (trial, winner) => send("/api/vote", { trial: trial.id, winner }),
  undo: (trial) => send("/api/undo", { trial: trial.id }),
  source: (code) => `/images/${code}.png`,
  warning: () => failing,
  // False while an answer is on its way: it must not be forgotten.
  leave() {
    if (kept.pending !== null) return false;
    kept = { rater: "", pending: null };
    keep();
    return true;
  },
};
