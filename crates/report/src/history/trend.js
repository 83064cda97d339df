"use strict";
// Sets text only: text from a guest is never parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const ORDER = ["passed", "flaky", "known", "skipped", "not-run", "errored", "failed"];
const SIGN = { passed: "✓", flaky: "≈", known: "•", failed: "✗", skipped: "–", errored: "!", "not-run": "?" };

function make(tag, content, properties = {}) {
  const element = document.createElement(tag);
  if (content !== undefined) element.textContent = content;
  return Object.assign(element, properties);
}

function head() {
  const [first, last] = [data.runs[0], data.runs.at(-1)];
  $("range").textContent = first ? `${data.runs.length} runs, ${first.id} to ${last.id}` : "no runs";
  $("steady").textContent = `${data.steady} of ${data.cells} cells passed or were skipped alike in every run.`;
}

function tell(at) {
  const run = data.runs[at];
  const counts = ORDER.filter((it) => run.standings[it]).map((it) => `${run.standings[it]} ${it}`).join(", ");
  const time = run.wall_ms === null ? "did not end" : `${(run.wall_ms / 1000).toFixed(1)} s`;
  $("told").textContent = `${run.id}: ${counts}; exit code ${run.exit}, ${time}; ${run.changed} cells changed`;
  document.querySelectorAll("#runs button").forEach((it, index) => it.classList.toggle("chosen", index === at));
}

// Failures are on top and drawn larger than their share, so that one failure among thousands is visible.
function runs() {
  data.runs.forEach((run, at) => {
    const bar = make("button", undefined, { type: "button" });
    const total = Math.max(1, Object.values(run.standings).reduce((sum, it) => sum + it, 0));
    for (const standing of ORDER.filter((it) => run.standings[it])) {
      const loud = !["passed", "skipped"].includes(standing);
      const share = (100 * run.standings[standing]) / total;
      bar.append(make("i", undefined, { className: standing, style: `flex: 0 1 ${loud ? Math.max(share, 6) : share}%` }));
    }
    bar.setAttribute("aria-label", `${run.id}, exit code ${run.exit}`);
    bar.title = run.id;
    bar.addEventListener("click", () => tell(at));
    bar.addEventListener("focus", () => tell(at));
    $("runs").append(bar);
  });
  if (data.runs.length) tell(data.runs.length - 1);
}

function strip(points) {
  const box = make("div", undefined, { className: "strip" });
  let before = null;
  points.forEach((point, at) => {
    if (!point) {
      box.append(make("i", "·", { className: "gone" }));
      return;
    }
    const [standing, attach] = point;
    const other = before && (before[0] !== standing || before[1] !== attach);
    box.append(make("i", `${SIGN[standing]} ${attach || ""}`, { className: `${standing}${other ? " other" : ""}`, title: `${data.runs[at].id}: ${standing}${attach ? ` by ${attach}` : ""}` }));
    before = point;
  });
  return box;
}

const lines = [];

function unsteady() {
  const header = make("thead"), titles = make("tr"), body = make("tbody");
  titles.append(make("th", "cell"), make("th", "kernel"), make("th", "runs, oldest first"), make("th", "last reason"));
  header.append(titles);
  for (const row of data.unsteady) {
    const line = make("tr"), strips = make("td"), reel = make("div", undefined, { className: "reel" });
    reel.append(strip(row.points));
    strips.append(reel);
    line.append(make("th", row.cell), make("td", row.kernel), strips, make("td", row.message));
    lines.push({ line, words: `${row.kernel} ${row.cell} ${row.message}`.toLowerCase() });
    body.append(line);
  }
  $("unsteady").append(header, body);
  // Scroll wide strips to their end, which has the newest runs.
  document.querySelectorAll("#unsteady .reel").forEach((it) => {
    it.scrollLeft = it.scrollWidth;
    // Scrollable elements must be reachable by the keyboard.
    if (it.scrollWidth > it.clientWidth + 1) it.tabIndex = 0;
  });
}

function filter() {
  const words = $("f-text").value.toLowerCase();
  let shown = 0;
  for (const it of lines) {
    it.line.hidden = !it.words.includes(words);
    shown += it.line.hidden ? 0 : 1;
  }
  $("shown").textContent = `${shown} of ${lines.length} cells`;
}

function slower() {
  for (const { kernel, cell, before_ms, now_ms } of data.slower) {
    const line = make("li", `${before_ms} ms → ${now_ms} ms · ${kernel} · `);
    line.append(make("code", cell));
    $("slower").append(line);
  }
  $("slower-section").hidden = !data.slower.length;
}

head();
runs();
unsteady();
filter();
slower();
$("f-text").addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
