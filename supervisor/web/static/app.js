// What a page does beyond its forms and links. Without this script all of it works, and is alive by reload.

import { askFirst } from "./ask.js";
import { watchChoice } from "./choose.js";
import { bindKeys } from "./keys.js";
import { goLive } from "./live.js";
import { keepTheme } from "./theme.js";
import { tellTimes } from "./times.js";

keepTheme();
tellTimes();
watchChoice();
askFirst();
bindKeys();
goLive();
