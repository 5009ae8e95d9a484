// Asks the uploader every two seconds and shows its answer; when there is none, that is what it shows.

import { address, byId, keyed, make, mark, say, set, show } from "./nodes.js";
import { openPlayer, refreshPlayer } from "./player.js";
import { showRecordings } from "./recordings.js";
import { clock, counted, duration, secondsBetween, size, verdict, visible } from "./words.js";

const ASK_EVERY_MS = 2000;
const ANSWER_WITHIN_MS = 5000;
const LOST_AFTER_SECONDS = 5; // and the last question failed
const SILENT_AFTER_SECONDS = 12; // no question failed, so the tab or the machine slept
const LIST_OLD_SECONDS = 10;
const SCHEMA_VERSION = 2;
const REFUSALS = [401, 403, 429];
const LEVELS = ["safe", "recording", "empty", "attention", "behind", "at_risk"];
const MARKS = { safe: "✓", recording: "●", empty: "○", attention: "!", behind: "↑", at_risk: "⚠", unknown: "?" };

const CALM =
  " Recorders go on writing to their disk, and nothing there is deleted." +
  " See that the uploader runs: it goes on where it was.";

let heard = null; // when the question was asked that was answered last, by both clocks
let failure = null; // why the last question got no answer
let asking = null;
let timer = 0;
let spoken = ""; // the answer as it was read out last, without how long it has been so

/** By the clock that says more: one of them stands still while a machine sleeps, the other can be set back. */
function ageSeconds() {
  if (!heard) return null;
  return Math.max(performance.now() - heard.steady, Date.now() - heard.wall, 0) / 1000;
}

async function ask() {
  if (failure?.refused) return; // asking on with a wrong password would lock everybody here out
  asking?.abort();
  clearTimeout(timer);
  const mine = (asking = new AbortController());
  const late = setTimeout(() => mine.abort(), ANSWER_WITHIN_MS);
  const result = await answer(mine.signal);
  clearTimeout(late);
  if (mine !== asking) return; // a newer question was asked meanwhile
  failure = result;
  showAge();
  timer = setTimeout(ask, ASK_EVERY_MS);
}

/** Ask once and show what comes. Gives null, or why there is nothing to show and whether that is certain. */
async function answer(signal) {
  const asked = { steady: performance.now(), wall: Date.now() };
  let text;
  try {
    const reply = await fetch(address("api/status"), { cache: "no-store", signal });
    if (!reply.ok) return { reason: refusal(reply.status), certain: true, refused: REFUSALS.includes(reply.status) };
    text = await reply.text();
  } catch (error) {
    return { reason: error.name === "AbortError" ? "Nothing answered in time." : "Nothing answers at this address." };
  }
  try {
    showReport(JSON.parse(text), asked);
    return null;
  } catch (error) {
    console.error(error);
    return { reason: "This page cannot read what the uploader answers. Load it again.", certain: true };
  }
}

function refusal(status) {
  if (REFUSALS.includes(status)) return "The uploader does not let this page in any more. Load it again to give the password.";
  return `The uploader answers with error ${status}. Its log says more.`;
}

function showReport(report, asked) {
  if (report.schema_version !== SCHEMA_VERSION || !LEVELS.includes(report.answer.level)) {
    throw new RangeError("another version of the uploader answers");
  }
  say(byId("host"), visible(report.host));
  say(byId("version"), visible(report.version));
  showFigures(report);
  showProblems(report);
  showSetup(report.setup);
  keyed(byId("silent"), report.silent, (one) => one.folder, () => make("li", "note warn"), (node, one) => {
    say(node, `${visible(one.title)}; before, never for more than ${duration(one.usual_seconds)}`);
  });
  showServices(report);
  showOutages(report);
  showListAge(report);
  showRecordings(report, openPlayer);
  refreshPlayer(report);
  say(byId("footer"), `The uploader has run for ${duration(report.uptime_seconds)}.`);
  showAnswer(report.answer.level, report.answer.title, report.answer.detail);
  heard = asked;
  beat();
}

/** A style sheet counts from here: if no script runs any more, it still says that this page is old. */
function beat() {
  document.body.dataset.beat = document.body.dataset.beat === "a" ? "b" : "a";
}

const timeless = (text) => text.replace(/ for \d+ (s|min|h|days)/g, "");

function showAnswer(level, title, detail) {
  set(document.body, "data-level", level);
  set(byId("mark"), "href", `#mark-${level}`);
  set(byId("icon"), "href", `icon-${level}.svg`);
  const text = verdict(level, title);
  say(byId("verdict"), text);
  if (timeless(text) !== spoken) {
    spoken = timeless(text);
    say(byId("spoken"), text);
  }
  say(byId("detail"), visible(detail));
  const host = byId("host").textContent;
  const wanted = `${MARKS[level]} ${text}${host ? ` – ${host}` : ""}`;
  if (document.title !== wanted) document.title = wanted;
}

/** Say how old all this is, as soon as it is older than it should be. */
function showAge() {
  const age = ageSeconds();
  const lost = failure ? failure.certain || age === null || age > LOST_AFTER_SECONDS : age > SILENT_AFTER_SECONDS;
  document.body.toggleAttribute("data-stale", lost);
  show(byId("age"), lost && age !== null);
  if (!lost) return;
  say(byId("age-figure"), duration(age));
  if (!failure) return showAnswer("unknown", "Asking again …", "This page was asleep.");
  const since = heard ? ` The last answer came at ${clock(heard.wall)}.` : "";
  showAnswer("unknown", "No answer from the uploader", failure.reason + since + (failure.certain ? "" : CALM));
}

function showFigures(report) {
  const { answer, counts } = report;
  say(byId("oldest"), answer.oldest_unsafe_seconds === null ? "none" : duration(answer.oldest_unsafe_seconds));
  say(byId("unsafe"), answer.unsafe_bytes ? size(answer.unsafe_bytes) : "nothing");
  say(byId("under-way"), String(counts.active));
  say(byId("failed-count"), String(counts.failed));
  byId("failed-count").parentNode.toggleAttribute("data-bad", counts.failed > 0);
}

const nameOf = (service) => (service.name === "Daemon" ? "The uploader itself" : visible(service.name));

function showServices(report) {
  const create = () => make("li", "", mark("safe"), make("span"));
  keyed(byId("services"), report.services, (one) => one.name, create, (node, one) => {
    set(node, "data-kind", one.ok ? "safe" : "at_risk");
    set(node.querySelector("use"), "href", `#mark-${one.ok ? "safe" : "at_risk"}`);
    say(node.lastElementChild, `${nameOf(one)}: ${one.ok ? "OK" : "failing"}`);
  });
}

function showSetup(setup) {
  say(byId("watching"), visible(`${setup.watching} (each put confirmed by ${setup.confirmed_by})`));
  show(byId("off-site"), setup.embedded);
  say(byId("setup-note"), visible(setup.note));
  show(byId("setup-note"), Boolean(setup.note));
}

function failing(service, now) {
  if (!service.since) return "does not work";
  return `has been failing for ${duration(secondsBetween(service.since, now))}`;
}

function showProblems(report) {
  const broken = report.services
    .filter((one) => !one.ok)
    .map((one) => ({
      key: one.name,
      title: `${nameOf(one)} ${failing(one, report.now)}`,
      problem: one.problem,
      hint: one.hint,
    }));
  const failed = report.counts.failed;
  if (failed) {
    const title = counted(failed, "recording failed", "recordings failed");
    broken.push({ key: " failed", title, problem: "", hint: "", link: "See why, and what to do" });
  }
  keyed(byId("problems"), broken, (one) => one.key, makeProblem, (node, one) => {
    const [title, problem, hint] = node.children;
    say(title, one.title);
    say(problem, visible(one.problem));
    show(problem, Boolean(one.problem));
    say(hint.firstChild, one.hint ? `What to do: ${visible(one.hint)} ` : "");
    show(hint, Boolean(one.hint || one.link));
  });
  show(byId("trouble"), broken.length > 0);
}

function makeProblem(one) {
  const hint = make("p", "hint", make("span"));
  if (one.link) {
    const link = make("a", "", one.link);
    link.href = "#group-failed";
    hint.append(link);
  }
  return make("li", "", make("h3"), make("p", "error"), hint);
}

function showOutages(report) {
  const keyOf = (one) => `${one.service} ${one.began_at}`;
  keyed(byId("outages"), report.outages, keyOf, () => make("li", "", make("strong"), make("span")), (node, one) => {
    const lasted = duration(secondsBetween(one.began_at, one.ended_at ?? report.now));
    const end = one.ended_at ? `, ${lasted} long` : `, still going on after ${lasted}`;
    say(node.firstChild, visible(one.service));
    say(node.lastChild, ` ${clock(one.began_at)}${end}: ${visible(one.reason)}`);
  });
  show(byId("no-outages"), report.outages.length === 0);
}

function showListAge(report) {
  const old = report.taken_at ? secondsBetween(report.taken_at, report.now) : null;
  say(byId("list-age"), old === null ? "The list could not be read yet." : `This list is ${duration(old)} old.`);
  show(byId("list-age"), old === null || old > LIST_OLD_SECONDS);
}

/** After sleep, or when the network is back: first say how old this is, then ask. */
function wake() {
  showAge();
  ask();
}

document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && wake());
document.addEventListener("freeze", () => showAnswer("unknown", "Asking again …", "This page was asleep."));
document.addEventListener("resume", wake);
window.addEventListener("pageshow", (event) => event.persisted && wake());
window.addEventListener("online", wake);
setInterval(showAge, 1000);
ask();
