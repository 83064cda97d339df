"use strict";
// Text only: nothing of a guest's is ever parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const OUTCOMES = ["failed", "errored", "not-run", "passed", "skipped"];
const SIGN = { passed: "✓", failed: "✗", skipped: "–", errored: "!", "not-run": "?" };

function make(tag, text, properties = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  return Object.assign(element, properties);
}

function attachOf(result) {
  return result.used.length ? result.used.join("+") : "";
}

function head() {
  $("run").textContent = data.run ? data.run.id : "";
  document.title = `netkit-lab ${data.run ? data.run.id : ""}`;
  for (const outcome of OUTCOMES) {
    const count = data.counts[outcome];
    if (count) $("summary").append(make("b", `${count} ${outcome}`, { className: outcome }));
  }
  const seconds = data.wall_ms === null ? "unfinished" : `${(data.wall_ms / 1000).toFixed(1)} s`;
  $("summary").append(`exit code ${data.exit}, ${seconds}`);
  if (data.run) {
    const { accelerator, reason, virtme_ng, qemu, mutant } = data.run;
    $("machine").textContent = `${new Date(data.started_ms).toISOString()} · ${accelerator} (${reason}) · virtme-ng ${virtme_ng} · QEMU ${qemu}` +
      (mutant ? ` · deliberate fault: ${mutant}` : "");
  }
  for (const name of data.dead_cases) $("summary").append(make("p", `no kernel can run ${name}`, { className: "failed" }));
}

function options(select, all, values) {
  select.append(make("option", all, { value: "" }));
  for (const value of values) select.append(make("option", value, { value }));
}

// The filters are in the address too, so that what one sees can be sent to somebody.
const FIELDS = { text: "f-text", kernel: "f-kernel", area: "f-area", attach: "f-attach", outcome: "f-outcome" };

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

function matches(result) {
  if (!result) return false;
  const outcome = $("f-outcome").value, attach = $("f-attach").value;
  if (outcome && result.outcome !== outcome) return false;
  return !attach || (attach === "none" ? !result.used.length : result.used.includes(attach) || result.requested === attach);
}

function field(kernel, row) {
  const result = kernel.results[row];
  const box = make("td");
  if (!result) return box;
  const attach = attachOf(result);
  const button = make("button", `${SIGN[result.outcome]} ${attach || result.outcome}`, { className: result.outcome, type: "button" });
  button.setAttribute("aria-label", `${data.cells[row].id} on ${kernel.id}: ${result.outcome}${attach ? `, ${attach}` : ""}`);
  button.dataset.kernel = kernel.id;
  button.dataset.row = row;
  box.append(button);
  return box;
}

function draw() {
  const wanted = $("f-kernel").value, area = $("f-area").value, words = $("f-text").value.toLowerCase();
  const kernels = data.kernels.filter((kernel) => !wanted || kernel.id === wanted);
  const table = $("map");
  const header = make("thead"), titles = make("tr");
  titles.append(make("th", "cell"));
  for (const kernel of kernels) titles.append(make("th", kernel.id, { title: kernel.release ?? "did not boot" }));
  header.append(titles);
  const body = make("tbody");
  let last = null, shown = 0;
  data.cells.forEach((cell, row) => {
    if (area && cell.area !== area) return;
    if (words && !`${cell.id} ${cell.title}`.toLowerCase().includes(words)) return;
    if (!kernels.some((kernel) => matches(kernel.results[row]))) return;
    if (cell.area !== last) {
      last = cell.area;
      const line = make("tr", undefined, { className: "area" });
      line.append(make("th", last, { colSpan: kernels.length + 1 }));
      body.append(line);
    }
    const line = make("tr");
    line.append(make("th", cell.id, { title: cell.title }));
    for (const kernel of kernels) line.append(field(kernel, row));
    body.append(line);
    shown += 1;
  });
  table.replaceChildren(header, body);
  $("shown").textContent = `${shown} of ${data.cells.length} cells`;
}

function open(kernelId, row) {
  const kernel = data.kernels.find((kernel) => kernel.id === kernelId);
  const result = kernel?.results[row], cell = data.cells[row];
  if (!result) return;
  $("d-title").textContent = cell.id;
  $("d-what").textContent = cell.title;
  const facts = {
    outcome: result.outcome, kernel: `${kernel.id} (${kernel.release ?? "did not boot"})`,
    "attach type asked for": result.requested ?? "–", "demanded by the plan": result.required ?? "–",
    "reported by the kernel": attachOf(result) || "–", checks: result.checks, time: `${result.ms} ms`,
  };
  $("d-facts").replaceChildren(...Object.entries(facts).flatMap(([key, value]) => [make("dt", key), make("dd", value)]));
  $("d-message").textContent = result.message ?? "";
  $("d-evidence").textContent = result.evidence ?? "";
  $("d-repro").textContent = result.repro;
  if (!$("detail").open) $("detail").showModal();
  writeAddress({ open: kernelId, cell: cell.id });
}

function capabilities() {
  const names = [...new Set(data.kernels.flatMap((kernel) => kernel.capabilities.map((it) => it.capability)))];
  const header = make("thead"), titles = make("tr");
  titles.append(make("th", "capability"), ...data.kernels.map((kernel) => make("th", kernel.id)));
  header.append(titles);
  const body = make("tbody");
  for (const name of names) {
    const line = make("tr");
    line.append(make("th", name));
    for (const kernel of data.kernels) {
      const found = kernel.capabilities.find((it) => it.capability === name);
      const box = make("td", found ? found.state.replace("-", " ") : "not probed", { title: found?.detail ?? "" });
      box.className = found?.state === "supported" ? "passed" : found?.state === "broken" ? "failed" : "skipped";
      line.append(box);
    }
    body.append(line);
  }
  $("capabilities").replaceChildren(header, body);
}

function slowest() {
  const all = data.kernels.flatMap((kernel) => kernel.results.map((result, row) => ({ kernel, row, ms: result?.ms ?? 0 })));
  const top = all.sort((a, b) => b.ms - a.ms).slice(0, 10).filter((it) => it.ms > 0);
  for (const { kernel, row, ms } of top) {
    const line = make("li", `${ms} ms · ${kernel.id} · ${data.cells[row].id}`);
    line.append(make("i", "", { style: `width:${(100 * ms) / top[0].ms}%` }));
    $("slowest").append(line);
  }
}

head();
options($("f-kernel"), "all", data.kernels.map((kernel) => kernel.id));
options($("f-area"), "all", [...new Set(data.cells.map((cell) => cell.area))]);
options($("f-attach"), "all", ["tc", "tcx", "netkit", "auto", "none"]);
options($("f-outcome"), "all", OUTCOMES);
const wanted = readAddress();
draw();
capabilities();
slowest();
$("filters").addEventListener("input", () => { writeAddress(); draw(); });
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("map").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) open(button.dataset.kernel, Number(button.dataset.row));
});
$("detail").addEventListener("close", () => writeAddress());
if (wanted.has("open")) open(wanted.get("open"), data.cells.findIndex((cell) => cell.id === wanted.get("cell")));
