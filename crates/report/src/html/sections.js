// Below the map: splats, times, capabilities, notes. Also starts the page.

function splats() {
  const lines = data.splats.map((it) => {
    const line = make("li"), row = data.cells.findIndex((cell) => cell.id === it.first);
    const kernel = data.kernels.findIndex((kernel) => kernel.id === it.kernels[0]);
    const seen = `seen ${it.times} ${it.times === 1 ? "time" : "times"} on ${it.kernels.join(", ")}`;
    const where = it.first ? `, first in ${it.first}` : ", outside of any cell";
    const content = [make("span", it.class, { className: `tag ${it.allowed ? "skipped" : "failed"}` }), make("code", it.title),
      make("div", `${seen}${where} · ${it.fingerprint}${it.suspects.length ? ` · suspects: ${it.suspects.join(", ")}` : ""}${it.allowed ? ` · allowed ${it.allowed}` : ""}`, { className: "faint" })];
    if (row >= 0 && kernel >= 0) line.append(openButton(kernel, row, content));
    else line.append(...content);
    return line;
  });
  $("splats").append(...lines);
  $("splats-section").hidden = !lines.length;
}

// Rows of the table of totals that are there when the page opens.
const AT_ONCE = 100;

function totals() {
  const [titles, rows, legend] = data.totals;
  const header = make("thead"), line = make("tr"), body = make("tbody");
  line.append(...["kernel", "release", ...titles].map((title) => make("th", title)));
  header.append(line);
  const add = ([kernel, release, columns]) => {
    const row = make("tr");
    row.append(make("th", kernel), make("td", release));
    columns.forEach((marks) => {
      const bad = marks.includes("✗") ? "failed" : marks.includes("!") ? "errored" : "";
      row.append(make("td", marks, { className: bad }));
    });
    body.append(row);
  };
  // The first screens of a long table come first.
  rows.slice(0, AT_ONCE).forEach(add);
  if (rows.length > AT_ONCE) requestIdleCallback(() => rows.slice(AT_ONCE).forEach(add));
  $("totals").append(header, body);
  $("totals-legend").textContent = legend;
}

function times() {
  const longest = Math.max(1, ...data.kernels.map((kernel) => kernel.wall_ms ?? 0));
  for (const kernel of data.kernels) {
    const wall = kernel.wall_ms ?? 0, boot = Math.min(kernel.boot_ms ?? 0, wall);
    const peak = kernel.peak_kib ? `, ${Math.round(kernel.peak_kib / 1024)} MiB` : "";
    const told = wall ? `${seconds(wall)} in total, ${kernel.boot_ms === null ? "did not boot" : `first boot ${seconds(kernel.boot_ms)}`}, ${kernel.guests} ${kernel.guests === 1 ? "guest" : "guests"}${peak}` : "not finished";
    const line = make("div"), bar = make("div", undefined, { className: "bar" });
    line.append(make("b", `${kernel.id} `), told);
    bar.append(make("i", undefined, { className: "boot", style: `width:${(100 * boot) / longest}%` }), make("i", undefined, { style: `width:${(100 * (wall - boot)) / longest}%` }));
    line.append(bar);
    $("times").append(line);
  }
}

function slowest() {
  const top = slow();
  for (const [ms, kernel, row] of top) {
    const line = make("li"), bar = make("div", undefined, { className: "bar" });
    bar.append(make("i", undefined, { style: `width:${(100 * ms) / top[0][0]}%` }));
    line.append(openButton(kernel, row, [`${seconds(ms)} · ${data.kernels[kernel].id} · `, make("code", data.cells[row].name)]), bar);
    $("slowest").append(line);
  }
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

function notes() {
  for (const kernel of data.kernels.filter((it) => it.notes.length)) {
    $("notes").append(make("h3", kernel.id), make("pre", kernel.notes.join("\n")));
    $("notes-section").hidden = false;
  }
}

head();
wrong();
totals();
options($("f-kernel"), "all", data.kernels.map((kernel) => kernel.id));
options($("f-area"), "all", [...new Set(data.cells.map((cell) => cell.area))]);
options($("f-attach"), "all", [...ATTACH, "auto", "none"]);
options($("f-outcome"), "all", LOUDEST.filter((it) => data.standings[it]));
const wanted = readAddress();
buildMap();
filter();
splats();
later("times", times);
later("slowest", slowest);
later("capabilities", capabilities);
notes();
$("filters").addEventListener("input", () => { writeAddress(); filter(); });
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("fold").addEventListener("click", () => {
  const folded = $("fold").getAttribute("aria-pressed") !== "true";
  $("fold").setAttribute("aria-pressed", String(folded));
  areas.forEach((made) => fold(made, folded));
});
$("map").addEventListener("click", (event) => openField(event.target.closest(".field")));
$("map").addEventListener("keydown", mapKeys);
$("detail").addEventListener("close", closed);
$("detail").addEventListener("keydown", detailKeys);
$("detail").addEventListener("click", (event) => event.target === $("detail") && $("detail").close());
$("d-previous").addEventListener("click", () => turn(-1));
$("d-next").addEventListener("click", () => turn(1));
$("d-copy").addEventListener("click", copyRepro);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || $("detail").open || event.target.closest("input, select")) return;
  event.preventDefault();
  $("f-text").focus();
});
function openWanted(wanted) {
  const kernel = data.kernels.findIndex((it) => it.id === wanted.get("open"));
  const row = data.cells.findIndex((cell) => cell.id === wanted.get("cell"));
  if (wanted.has("open") && kernel >= 0 && row >= 0) open(kernel, row);
  else if ($("detail").open) $("detail").close();
}

// Handles a link to another view of the open page, and going back.
window.addEventListener("hashchange", () => {
  const wanted = readAddress();
  filter();
  openWanted(wanted);
});
openWanted(wanted);
reachable();
window.addEventListener("resize", reachable);
