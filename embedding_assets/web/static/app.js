// Makes the pages livelier; each works without it.
import { submitOnChange } from "./forms.js";
import { watchDocument } from "./progress.js";
import { enhanceSearch } from "./search.js";

document.documentElement.classList.add("scripted");
submitOnChange(document);

const search = document.getElementById("search");
if (search) enhanceSearch(search);

const live = document.getElementById("live");
if (live) watchDocument(live);
