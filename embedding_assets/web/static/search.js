// The search page: images by drop, paste or pick; answers without a reload; the address always says what is shown.
import { fetchPage, state, swap } from "./forms.js";

const IMAGE = /^image\//;

export function enhanceSearch(form) {
  const box = form.querySelector(".search-box");
  const text = form.elements.q;
  const picker = form.elements.image;
  let asking = null; // the request under way: a newer one takes its place

  const here = () => location.pathname + location.search;
  let shownHere = here();
  const results = () => document.getElementById("results");

  async function ask(url, options, { push }) {
    asking?.abort();
    const mine = (asking = new AbortController());
    const old = results();
    old.setAttribute("aria-busy", "true");
    const wait = document.createElement("p");
    wait.className = "working";
    wait.textContent = "Searching … the first search also loads the models";
    old.prepend(wait);
    try {
      const { page, url: shown } = await fetchPage(url, { ...options, signal: mine.signal });
      if (page.getElementById("results")) swap("results", page);
      else old.replaceChildren(...page.querySelectorAll("main > .state"));
      document.title = page.title;
      if (push) history.pushState(null, "", shown);
      shownHere = here();
      return true;
    } catch (error) {
      if (error.name === "AbortError") return false;
      old.replaceChildren(state("The server does not answer", "Is it still running? Try again in a moment: embedding-assets serve"));
      return false;
    } finally {
      if (asking === mine) {
        asking = null;
        results().removeAttribute("aria-busy");
      }
      wait.remove();
    }
  }

  function address() {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      if (typeof value === "string" && value && !(name === "profile" && value === "auto")) query.set(name, value);
    }
    return query.size ? `/?${query}` : "/";
  }

  function asksSomething() {
    return Boolean(text.value.trim() || hasImage() || form.elements.image_id);
  }

  function hasImage() {
    return picker.files.length > 0;
  }

  function submit(show) {
    if (hasImage()) {
      const data = new FormData(form);
      if (show) data.set("show", show);
      return ask("/", { method: "POST", body: data }, { push: false });
    }
    return ask(address(), {}, { push: true });
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (asksSomething()) submit();
    else text.focus();
  });

  form.addEventListener("change", (event) => {
    if (event.target.name !== "profile") return;
    form.elements.arm?.remove(); // a profile takes the place of the one arm
    if (asksSomething()) submit();
  });

  // What the box holds besides words is taken out without losing the words.
  box.addEventListener("click", (event) => {
    const out = event.target.closest("a.drop-it");
    if (!out || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    out.closest(".by-image").remove();
    text.focus();
    if (asksSomething()) submit();
    else location.assign(address());
  });

  // -- the image --------------------------------------------------------------------------------------------------
  function showImage() {
    form.querySelector("#by-image")?.remove();
    const file = picker.files[0];
    if (!file) return;
    const badge = document.createElement("span");
    badge.className = "by-image";
    badge.id = "by-image";
    const image = document.createElement("img");
    image.alt = "";
    image.src = URL.createObjectURL(file);
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
    const name = document.createElement("span");
    name.textContent = file.name || "pasted image";
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "drop-it";
    remove.textContent = "×";
    remove.setAttribute("aria-label", "Search without this image");
    remove.addEventListener("click", () => {
      picker.value = "";
      badge.remove();
      text.focus();
      if (text.value.trim()) submit();
    });
    badge.append(image, name, remove);
    box.prepend(badge);
  }

  function take(files) {
    const file = [...files].find((one) => IMAGE.test(one.type));
    if (!file) {
      results().replaceChildren(state("That is no image", "Drop, paste or pick a picture: JPEG, PNG, WebP, TIFF, GIF, BMP or AVIF."));
      return;
    }
    const transfer = new DataTransfer();
    transfer.items.add(file);
    picker.files = transfer.files;
    showImage();
    submit();
  }

  picker.addEventListener("change", () => {
    if (!hasImage()) return;
    showImage();
    submit();
  });

  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) {
      event.preventDefault();
      take(event.clipboardData.files);
    }
  });

  const target = document.createElement("div");
  target.className = "drop-here";
  target.hidden = true;
  target.textContent = "Drop the image to search by it";
  document.body.append(target);
  let depth = 0; // dragenter and dragleave come for every element on the way
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    depth += 1;
    target.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!carriesFiles(event)) return;
    depth -= 1;
    if (depth <= 0) target.hidden = true;
  });
  document.addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    target.hidden = true;
    take(event.dataTransfer.files);
  });

  // -- more of the same -------------------------------------------------------------------------------------------
  document.addEventListener("click", async (event) => {
    const more = event.target.closest?.("#more");
    if (!more || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const shown = document.querySelectorAll("#hits > .hit").length;
    const show = new URL(more.href).searchParams.get("show");
    const good = hasImage() ? await submit(show) : await ask(more.href, {}, { push: true });
    if (good) document.querySelectorAll("#hits > .hit")[shown]?.querySelector("a")?.focus();
  });

  // Back and forward show what the address says; a jump within the page changes nothing.
  window.addEventListener("popstate", () => {
    if (here() !== shownHere) location.reload();
  });
}
