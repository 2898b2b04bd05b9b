// A document's page keeps itself up to date: bars move while a run goes on, and what was mended leaves the list.
import { fetchPage, swap } from "./forms.js";

const BUSY_MS = 1500; // between looks while something is to do
const IDLE_MS = 15000; // and otherwise
const AFTER_RETRY_MS = 180000; // a run takes its time to begin

const LISTS = ["failures", "images"];
const SVG = "http://www.w3.org/2000/svg";

export function watchDocument(live) {
  const url = live.dataset.progress;
  let stamp = live.dataset.stamp;
  let open = live.dataset.open === "1";
  let busyUntil = /[?&]notice=/.test(location.search) ? Date.now() + AFTER_RETRY_MS : 0;
  let timer = 0;

  function again() {
    clearTimeout(timer);
    timer = setTimeout(look, open || Date.now() < busyUntil ? BUSY_MS : IDLE_MS);
  }

  function draw(stages) {
    const said = [];
    for (const [name, stage] of Object.entries(stages)) {
      const row = live.querySelector(`[data-stage="${CSS.escape(name)}"]`);
      if (!row) continue;
      row.querySelector("[data-percent]").textContent = stage.percent;
      row.querySelector("[data-words]").textContent = stage.words;
      row.querySelector(".bar").replaceChildren(
        ...stage.parts.map((part) => {
          const rect = document.createElementNS(SVG, "rect");
          rect.setAttribute("class", part.kind);
          rect.setAttribute("x", part.start);
          rect.setAttribute("width", part.width);
          rect.setAttribute("height", 6);
          return rect;
        }),
      );
      said.push(`${row.querySelector("strong").textContent}: ${stage.words}`);
    }
    live.querySelector("#progress-said").textContent = said.join(". ");
  }

  async function look() {
    if (document.hidden) return again();
    try {
      const response = await fetch(url, { headers: { Accept: "application/json" }, credentials: "same-origin" });
      if (response.ok) {
        const progress = await response.json();
        open = progress.open;
        if (progress.stamp !== stamp) {
          draw(progress.stages);
          // Whoever is about to press something in a list keeps it until they have moved on.
          if (LISTS.some((id) => document.getElementById(id).contains(document.activeElement))) {
            busyUntil = Math.max(busyUntil, Date.now() + 2 * BUSY_MS);
          } else {
            const { page } = await fetchPage(location.href);
            if (LISTS.map((id) => swap(id, page)).every(Boolean)) stamp = progress.stamp;
          }
        }
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // a TypeError is a server that does not answer: look again later
    }
    return again();
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("[data-retry]")) return;
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    const { page } = await fetchPage(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    const notice = page.getElementById("notice");
    const trouble = page.querySelector("main > .state");
    if (notice) swap("notice", page);
    else if (trouble) document.getElementById("notice").replaceChildren(document.adoptNode(trouble));
    if (trouble) button.disabled = false;
    document.getElementById("notice").focus();
    busyUntil = Date.now() + AFTER_RETRY_MS;
    look();
  });

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) look();
  });
  again();
}
