// Keeps a page current without reloading it: fetches the same page again and changes only what differs, so that
// scroll position, focus, selection and open controls stay. Without JavaScript the pages are complete, but stand still.
"use strict";

const content = document.getElementById("content");
const banner = document.getElementById("banner");

// Makes `old` like `fresh` in place; elements are matched by id where they have one, else by their place.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || (old.id || "") !== (fresh.id || "")) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  // What the reader is typing into or choosing from is the reader's.
  if (old.matches("input, select, textarea")) return;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
  const named = new Map();
  for (const child of old.children) if (child.id) named.set(child.id, child);
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const match = next.id ? named.get(next.id) : at && !at.id && at.nodeName === next.nodeName ? at : null;
    if (!match) {
      old.insertBefore(next, at);
    } else {
      if (match === at) at = at.nextSibling;
      else old.insertBefore(match, at);
      morph(match, next);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

let showing = location.pathname + location.search;
let turn = 0;
let lastGood = new Date();

async function load(address) {
  const mine = ++turn;
  try {
    const answer = await fetch(address, { credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(15000) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (mine !== turn) return; // a newer question was asked meanwhile
    if (answer.ok && "problem" in content.dataset) location.reload(); // it is another page now
    if (!answer.ok) throw new Error(page.querySelector("main p")?.textContent || `answered ${answer.status}`);
    morph(content, page.getElementById("content"));
    morph(document.getElementById("status"), page.getElementById("status"));
    document.title = page.title;
    lastGood = new Date();
    banner.hidden = true;
  } catch (error) {
    if (mine !== turn) return;
    const reason = error.name === "TypeError" ? "the connection is gone" : error.message;
    banner.textContent = `Not current since ${lastGood.toLocaleTimeString()}: ${reason} Trying again.`;
    banner.hidden = false;
  }
}

// One after the other, so that a slow answer is never overtaken by the next question.
let paused = false;
async function keepCurrent(seconds) {
  for (;;) {
    await new Promise((wake) => setTimeout(wake, seconds * 1000));
    if (!paused && !document.hidden) await load(showing);
  }
}

const seconds = Number(content.dataset.refresh);
if (seconds) {
  const pause = document.getElementById("pause");
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume" : "Pause";
    pause.setAttribute("aria-pressed", String(paused));
    if (!paused) load(showing);
  });
  keepCurrent(seconds);
}

// Filters act while they are changed; the address follows, so that it can be kept and sent on.
const filters = document.querySelector("form[data-live]");
if (filters) {
  const apply = () => {
    showing = `${filters.getAttribute("action")}?${new URLSearchParams(new FormData(filters))}`;
    history.replaceState(null, "", showing);
    load(showing);
  };
  let soon;
  filters.addEventListener("input", () => { clearTimeout(soon); soon = setTimeout(apply, 150); });
  filters.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
}

document.addEventListener("keydown", (event) => {
  const search = document.getElementById("q");
  if (event.key !== "/" || !search || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) return;
  event.preventDefault();
  search.focus();
});

const theme = document.getElementById("theme");
function showTheme() {
  theme.textContent = `Theme: ${document.documentElement.dataset.theme || "system"}`;
}
theme.hidden = false;
theme.addEventListener("click", () => {
  const after = { undefined: "dark", dark: "light", light: undefined }[document.documentElement.dataset.theme];
  if (after) document.documentElement.dataset.theme = after;
  else delete document.documentElement.dataset.theme;
  if (after) localStorage.setItem("theme", after);
  else localStorage.removeItem("theme");
  showTheme();
});
showTheme();

// The findings come from the command, after the page around them.
const part = document.querySelector("[data-load]");
if (part) {
  const again = document.getElementById("check-again");
  again.hidden = false;
  const fill = async () => {
    again.disabled = true;
    part.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(part.dataset.load, { cache: "no-store" });
      const text = await answer.text();
      if (answer.ok && "problem" in content.dataset) location.reload(); // it is another page now
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
      const fresh = part.cloneNode(false);
      fresh.append(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
      morphChildren(part, fresh);
      banner.hidden = true;
    } catch (error) {
      banner.textContent = `The checks could not be run: ${error.message}`;
      banner.hidden = false;
    }
    again.disabled = false;
    part.removeAttribute("aria-busy");
  };
  again.addEventListener("click", fill);
  fill();
}
