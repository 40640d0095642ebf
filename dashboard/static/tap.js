// Live requests by Server-Sent Events. Whatever came over the wire is shown as text, never as HTML.
"use strict";
(() => {
  const MOST_ROWS = 500;
  const form = document.getElementById("tap-form");
  const rows = document.getElementById("tap-rows");
  const status = document.getElementById("tap-status");
  const start = document.getElementById("tap-start");
  const stop = document.getElementById("tap-stop");
  let source = null;
  let count = 0;
  let waiting = [];
  let note = ""; // how the tap itself is doing

  function cell(text, name) {
    const element = document.createElement("td");
    element.textContent = text;
    if (name) element.className = name;
    return element;
  }

  function row(entry) {
    const element = document.createElement("tr");
    element.append(
      cell(entry.time, "num"), cell(entry.direction), cell(`${entry.source} → ${entry.destination}`),
      cell(entry.request, "request"), cell(entry.status, "num"), cell(entry.latency, "num"), cell(entry.bytes, "num"),
      cell(entry.tls, entry.secure ? "verdict ok" : "verdict warn"), cell(entry.peer, "quiet identity"),
    );
    return element;
  }

  // Once a frame at most, however fast they come.
  function show() {
    const fresh = waiting.slice(-MOST_ROWS).reverse().map(row);
    waiting = [];
    rows.prepend(...fresh);
    while (rows.childElementCount > MOST_ROWS) rows.lastElementChild.remove();
    tell();
  }

  function tell() {
    const seen = count ? `${count} seen${count > MOST_ROWS ? `, the last ${MOST_ROWS} shown` : ""}` : "nothing seen yet";
    status.textContent = `Running: ${seen}${note ? `; ${note}` : ""}.`;
  }

  function end(words) {
    source?.close();
    source = null;
    start.disabled = false;
    stop.disabled = true;
    status.textContent = words;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (source) return;
    count = 0;
    note = "";
    rows.replaceChildren();
    start.disabled = true;
    stop.disabled = false;
    status.textContent = "Starting …";
    source = new EventSource(`/tap/stream?${new URLSearchParams(new FormData(form))}`);
    source.addEventListener("open", tell);
    source.addEventListener("status", (message) => { note = JSON.parse(message.data); tell(); });
    source.addEventListener("entry", (message) => {
      count += 1;
      waiting.push(JSON.parse(message.data));
      if (waiting.length === 1) requestAnimationFrame(show);
    });
    source.addEventListener("problem", (message) => end(JSON.parse(message.data)));
    source.addEventListener("error", () => { if (source) end("Stopped: the connection is gone."); });
  });
  stop.addEventListener("click", () => end(`Stopped after ${count}.`));
})();
