// Small things that several pages share.

// A choice takes effect at once, so its button is not needed.
export function submitOnChange(root) {
  for (const form of root.querySelectorAll("form[data-submit-on-change]")) {
    form.querySelector("[data-unscripted]")?.setAttribute("hidden", "");
    form.addEventListener("change", () => form.requestSubmit());
  }
}

// Fetches a page of this server as a document; an error page is a page too.
export async function fetchPage(url, options = {}) {
  const response = await fetch(url, { ...options, headers: { Accept: "text/html" }, credentials: "same-origin" });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  return { page, url: response.url };
}

// Puts a part of a fetched page in the place of the same part of this one.
export function swap(id, page) {
  const fresh = page.getElementById(id);
  const stale = document.getElementById(id);
  if (!fresh || !stale) return false;
  stale.replaceWith(document.adoptNode(fresh));
  return true;
}

// A state that says what went wrong and what to do.
export function state(heading, words) {
  const box = document.createElement("div");
  box.className = "state";
  box.setAttribute("role", "alert");
  const title = document.createElement("h2");
  title.textContent = heading;
  const text = document.createElement("p");
  text.textContent = words;
  box.append(title, text);
  return box;
}
