// Transport of the offline page: answers are kept in this browser until they are handed in as a CSV.
const config = JSON.parse(document.getElementById("config").textContent);
const place = `preferences:${config.study}:${config.list}`;
const empty = () => ({ rater: "", answers: {}, undone: 0 });
let kept = empty();
let storable = true;

function recall() {
  try {
    const text = localStorage.getItem(place);
    if (text !== null) kept = JSON.parse(text);
  } catch {
    storable = false;
  }
}

function keep() {
  try {
    localStorage.setItem(place, JSON.stringify(kept));
    storable = true;
  } catch {
    storable = false;
  }
}

// As write_votes does it: quotes only where they are needed, line feeds.
function field(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv() {
  const rows = [config.columns];
  for (const trial of config.trials) {
    const answer = kept.answers[trial.id];
    if (answer === undefined) continue;
    const row = {
      ...trial,
      prompt: config.prompts[trial.prompt_id],
      winner: answer.winner,
      rater: kept.rater,
      rater_kind: "human",
      shown_left: trial.left,
      time: answer.time,
      attention_check: trial.check,
      study: config.study,
    };
    rows.push(config.columns.map((name) => row[name]));
  }
  return rows.map((row) => row.map(field).join(",") + "\n").join("");
}

recall();
const transport = {
  suggested: config.list,
  total: config.trials.length,
  keeping: "Your answers stay in this browser, also when you close the page. At the end you download them as a file.",
  ended: "Your answers are ready. Download the file and send it to the person who asked you.",
  downloads: true,
  remembered: () => kept.rater,
  // Called when another tab of the same page has changed the answers.
  watch(changed) {
    addEventListener("storage", (event) => {
      if (event.key !== place) return;
      kept = empty();
      recall();
      changed(Object.fromEntries(Object.entries(kept.answers).map(([id, each]) => [id, each.winner])));
    });
  },
  async join(rater) {
    kept.rater = rater;
    keep();
    const answers = Object.fromEntries(Object.entries(kept.answers).map(([id, each]) => [id, each.winner]));
    return { trials: config.trials, prompts: config.prompts, answers };
  },
  async vote(trial, winner) {
    kept.answers[trial.id] = { winner, time: new Date().toISOString() };
    keep();
  },
  async undo(trial) {
    delete kept.answers[trial.id];
    kept.undone += 1;
    keep();
  },
  source: (code) => `data:image/png;base64,${document.getElementById(code).textContent}`,
  warning: () => (storable ? "" : "This browser does not keep answers. Do not close this page before you download them."),
  download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    link.download = `${config.study}.${config.list}.csv`;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  },
};
