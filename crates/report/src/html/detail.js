// The details of a field: all information about a cell on a kernel.

let opened = null;

function open(kernel, row) {
  if (!data.kernels[kernel] || !seen(kernel, row)) return;
  opened = [kernel, row];
  ready(row, () => opened?.join() === [kernel, row].join() && tell(kernel, row, result(kernel, row)));
}

function tell(kernel, row, it) {
  const cell = data.cells[row], host = data.kernels[kernel];
  $("d-title").textContent = cell.name;
  $("d-what").textContent = cell.title;
  const facts = {
    outcome: it.standing, kernel: `${host.id} (${host.release ?? "did not boot"})`,
    "requested attach type": cell.attach ?? "–", "required by the plan": it.required ?? "–",
    "reported by the kernel": it.used.join(" + ") || "–", time: seconds(it.ms), topology: `${cell.topology || "–"}${cell.device ? ` (${cell.device})` : ""}`,
  };
  $("d-facts").replaceChildren(...Object.entries(facts).flatMap(([key, value]) => {
    const told = make("dd");
    told.append(key === "outcome" ? make("span", value, { className: `tag ${value}` }) : value);
    return [make("dt", key), told];
  }));
  $("d-message").textContent = it.message;
  $("d-evidence").replaceChildren(...evidence(it, cell, host));
  const mutant = data.run?.mutant ? ` --mutant ${quote(data.run.mutant)}` : "";
  // The rows of a guest (boot, splat, teardown) belong to no case.
  const which = cell.area === "guest" ? "" : ` --case ${quote(cell.id)}`;
  const canary = data.run?.canary ? " --canary" : "";
  $("d-repro").textContent = `lab run --kernel ${quote(host.id)}${which}${canary}${mutant}`;
  $("d-copy").textContent = "Copy";
  if (!$("detail").open) $("detail").showModal();
  $("detail").scrollTop = 0;
  reachable();
  writeAddress({ open: host.id, cell: cell.id });
}

function part(title, ...content) {
  return content.length ? [make("h3", title), ...content] : [];
}

function evidence({ rest }, cell, host) {
  const checks = make("ul", undefined, { className: "checks" });
  for (const [ok, name, seen] of rest.c ?? []) {
    checks.append(make("li", `${ok ? "✓" : "✗"} ${text(name)}: ${text(seen)}`, { className: ok ? "" : "bad" }));
  }
  const attachments = (rest.a ?? []).map(([device, kind, asked, hook, prog, link, ran]) =>
    `${text(device)} (${text(kind)}): ${text(asked)} → ${text(hook) || "nowhere"}, prog ${prog}${link === null ? "" : `, link ${link}`}${ran === null ? "" : `, ran ${ran}`}`);
  const metrics = (rest.m ?? []).map(([name, value]) => `${text(name)} = ${value}`);
  const texts = (indexes) => (indexes ?? []).map(text);
  const block = (lines) => (lines.length ? [make("pre", lines.join("\n"))] : []);
  return [
    ...part("Checks", ...(rest.c ? [checks] : [])),
    ...part("Noticed", ...block(texts(rest.w))),
    ...part("Attached", ...block(attachments)),
    ...part("Evidence", ...block(texts(rest.e))),
    ...part("Log", ...block(texts(rest.l))),
    ...part("Measured", ...block(metrics)),
    ...part("Files", ...links([...texts(rest.f), ...host.consoles])),
    ...part("Topology", ...drawing(cell)),
  ];
}

// Paths are relative to the report. The content of the files comes from a guest: text is opened, a drawing is shown as an
// image, in which no script can run, and everything else can only be saved.
function links(paths) {
  if (!paths.length) return [];
  const list = make("ul", undefined, { className: "checks" });
  for (const path of paths) {
    const item = make("li");
    const href = `./${path.split("/").map(encodeURIComponent).join("/")}`;
    if (path.endsWith(".svg")) {
      item.append(make("span", path), make("img", undefined, { className: "attached", alt: path, src: href }));
    } else if (path.endsWith(".txt") || path.endsWith(".log")) {
      item.append(make("a", path, { href, target: "_blank", rel: "noopener noreferrer" }));
    } else {
      item.append(make("a", path, { href, download: "" }));
    }
    list.append(item);
  }
  return [list];
}

// As an image, in which no script can run.
function drawing(cell) {
  const svg = data.drawings[`${cell.topology} ${cell.device ?? ""}`] ?? data.drawings[`${cell.topology} `];
  if (!svg) return [];
  const box = make("div", undefined, { className: "scroll" });
  box.append(make("img", undefined, { className: "drawing", alt: `the topology ${cell.topology}`, src: `data:image/svg+xml,${encodeURIComponent(svg)}` }));
  return [box];
}

function detailKeys(event) {
  if (event.key === "ArrowRight") turn(1);
  else if (event.key === "ArrowLeft") turn(-1);
}

async function copyRepro() {
  try {
    await navigator.clipboard.writeText($("d-repro").textContent);
    $("d-copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("d-repro"));
    $("d-copy").textContent = "Selected";
  }
}

function closed() {
  opened = null;
  writeAddress();
  refocus();
}
