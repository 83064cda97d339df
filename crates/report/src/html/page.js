"use strict";
// Sets text only: text from a guest is never parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
// The order of the numbers in the data, and the order of display, most severe first.
const STANDINGS = ["passed", "flaky", "known", "failed", "skipped", "errored", "not-run"];
const LOUDEST = ["failed", "errored", "not-run", "flaky", "known", "passed", "skipped"];
const SIGN = { passed: "✓", flaky: "≈", known: "•", failed: "✗", skipped: "–", errored: "!", "not-run": "?" };
const BAD = new Set(["failed", "errored", "not-run"]);
const ATTACH = ["tc", "tcx", "netkit"];
let strings = data.strings;
const text = (index) => strings[index] ?? "";

function make(tag, content, properties = {}) {
  const element = document.createElement(tag);
  if (content !== undefined) element.textContent = content;
  return Object.assign(element, properties);
}

// A result in the data is [standing, attach types used as bits, required, milliseconds, message, rest].
function result(kernel, row) {
  const raw = rawOf(kernel, row);
  if (!raw) return null;
  const [standing, used, required, ms, message, rest] = raw;
  return {
    standing: STANDINGS[standing], used: ATTACH.filter((_, bit) => used & (1 << bit)),
    required: ATTACH[required - 1], ms, message: text(message), rest: rest ?? {},
  };
}

// Misleading characters of a name are escaped on the page; commands contain the name unchanged.
const hidden = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]/g;
for (const cell of data.cells) {
  cell.name = cell.id.replace(hidden, (it) => `\\u{${it.charCodeAt(0).toString(16)}}`);
  cell.title = cell.title.replace(hidden, " ");
}

const seconds = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${ms} ms`);
const quote = (word) => (/^[A-Za-z0-9._\-+/:=,@%]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

function head() {
  const run = data.run ?? {};
  $("run").textContent = run.id ?? "";
  document.title = `netkit-lab ${run.id ?? ""}`;
  for (const standing of LOUDEST) {
    const count = data.standings[standing];
    if (!count) continue;
    const chip = make("button", `${count} ${standing}`, { className: `chip ${standing}`, type: "button", title: "show only these" });
    chip.addEventListener("click", () => choose({ outcome: standing }));
    $("summary").append(chip);
  }
  const time = data.wall_ms === null ? "unfinished" : seconds(data.wall_ms);
  $("summary").append(make("span", `exit code ${data.exit} after ${time}`));
  const told = [new Date(data.started_ms).toISOString(), run.accelerated, `virtme-ng ${run.virtme_ng}`, `QEMU ${run.qemu}`, `lab ${run.lab}`];
  for (const [name, value] of run.provenance ?? []) told.push(`${name} ${value}`);
  // Mark runs that must fail.
  if (run.mutant) $("meant").textContent = `Deliberate fault “${run.mutant}”: this run is expected to fail.`;
  if (run.canary) $("meant").textContent = "Canaries: every cell of this run must fail, hang, leak or panic.";
  $("meant").hidden = !run.mutant && !run.canary;
  $("machine").textContent = told.join(" · ");
  $("machine").title = run.reason ?? "";
}

// Scrollable elements must be reachable by the keyboard.
function reachable() {
  for (const it of document.querySelectorAll("pre, .scroll, .reel, #d-evidence")) {
    if (it.id === "map" || it.closest("[hidden]")) continue;
    const scrolls = it.scrollHeight > it.clientHeight + 1 || it.scrollWidth > it.clientWidth + 1;
    if (scrolls) it.tabIndex = 0;
  }
}

function openButton(kernel, row, content) {
  const button = make("button", undefined, { type: "button" });
  button.append(...content);
  button.addEventListener("click", () => open(kernel, row));
  return button;
}

// Failures; cells with the same message are listed once.
function wrong() {
  const list = [...data.lost_shards, ...data.expired, ...data.slow, ...data.stragglers, ...data.dead_cases.map((name) => `no kernel of the matrix can run ${name}`)]
    .map((line) => make("li", line, { className: "told" }));
  const { told, more } = stories();
  for (const { standing, message, count, kernels: where, first: [kernel, row] } of told) {
    const line = make("li");
    const names = count === 1 ? data.cells[row].name : `${data.cells[row].name} and ${count - 1} more`;
    const kernels = where.slice(0, 30).map((k) => data.kernels[k].id).join(", ") + (where.length > 30 ? ` and ${where.length - 30} more kernels` : "");
    line.append(openButton(kernel, row, [make("span", standing, { className: `tag ${standing}` }), make("b", `${kernels} `), make("code", names), ` ${message.slice(0, 300)}${message.length > 300 ? "…" : ""}`]));
    list.push(line);
  }
  if (more) list.push(make("li", `… and ${more} more stories: filter by outcome`));
  $("wrong").replaceChildren(...list);
  $("wrong-section").hidden = !list.length;
}

// The address contains the filters, so that a view can be shared.
const FIELDS = { text: "f-text", kernel: "f-kernel", area: "f-area", attach: "f-attach", outcome: "f-outcome" };

function options(select, all, values) {
  select.append(make("option", all, { value: "" }), ...values.map((value) => make("option", value, { value })));
}

function readAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const [key, id] of Object.entries(FIELDS)) $(id).value = wanted.get(key) ?? "";
  return wanted;
}

function writeAddress(extra = {}) {
  const address = new URLSearchParams();
  for (const [key, id] of Object.entries(FIELDS)) if ($(id).value) address.set(key, $(id).value);
  for (const [key, value] of Object.entries(extra)) address.set(key, value);
  history.replaceState(null, "", `#${address}`);
}

function choose(values) {
  for (const [key, value] of Object.entries(values)) $(FIELDS[key]).value = value;
  writeAddress();
  filter();
  $("filters").scrollIntoView({ block: "start" });
}
