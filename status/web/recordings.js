// The list of recordings: failed ones first, then those under way, then those that ended.

import { arrange, byId, make, mark, say, set, show } from "./nodes.js";
import { ago, clock, counted, duration, length, rate, size, state, visible } from "./words.js";

const GROUPS = ["failed", "under-way", "ended"];
const LAG_STEPS = [60, 600, 3600, 86400];

const rows = new Map(); // by stream id
let latest = null;

function groupOf(stream) {
  if (stream.state === "failed" && !stream.cancelled) return "failed";
  return ["active", "finalizing"].includes(stream.state) ? "under-way" : "ended";
}

/** In steps, so that two healthy recordings do not change places every two seconds. */
function lagStep(stream) {
  return LAG_STEPS.filter((step) => (stream.lag_seconds ?? 0) >= step).length;
}

const byName = (one, other) => one.path.localeCompare(other.path) || one.generation - other.generation;

const ORDERS = {
  failed: byName,
  "under-way": (one, other) => lagStep(other) - lagStep(one) || byName(one, other),
  ended: (one, other) => Date.parse(other.modified_at) - Date.parse(one.modified_at) || byName(one, other),
};

function fact(name) {
  const value = make("dd");
  const pair = make("div", "", make("dt", "", name), value);
  return { pair, value };
}

function makeRow(stream, play) {
  const parts = {
    name: make("bdi"),
    nth: make("span", "nth"),
    word: make("span"),
    use: mark("unknown"),
    progress: make("progress"),
    amount: make("span", "amount-text"),
    error: make("p", "error"),
    hint: make("p", "hint"),
    play: make("button", "play", mark("play"), make("span", "", "Play")),
    unsafe: fact("Not in S3"),
    rate: fact("Rate"),
    last: fact("Last chunk"),
    left: fact("Time left"),
    length: fact("Length"),
    when: fact("Ended"),
    stored: fact("Uploaded"),
  };
  const facts = [parts.unsafe, parts.rate, parts.last, parts.left, parts.length, parts.when, parts.stored].map(
    (one) => one.pair,
  );
  parts.play.type = "button";
  parts.play.addEventListener("click", () => play(rows.get(stream.id).stream));
  const node = make(
    "li",
    "row",
    make("h4", "", parts.name, parts.nth),
    make("p", "state", parts.use, parts.word),
    make("div", "amount", parts.progress, parts.amount),
    make("dl", "facts", ...facts),
    make("div", "act", parts.play),
    parts.error,
    parts.hint,
  );
  node.dataset.id = stream.id;
  return { node, parts, stream };
}

function amountText(stream, group) {
  if (stream.lost_bytes) return `${size(stream.offset_bytes)} in S3, at least ${size(stream.lost_bytes)} lost`;
  if (group === "ended" && !stream.unsafe_bytes) return size(stream.offset_bytes);
  return `${size(stream.offset_bytes)} of ${size(stream.size_bytes)} in S3`;
}

function updateRow(row, stream, now) {
  const { node, parts } = row;
  const group = groupOf(stream);
  const [word, kind] = state(stream);
  const name = visible(stream.path);
  row.stream = stream;
  set(node, "data-kind", kind);
  set(node, "data-group", group);
  say(parts.name, name);
  say(parts.nth, stream.generation > 1 ? ` (no. ${stream.generation} of this name)` : "");
  say(parts.word, word);
  set(parts.use.firstElementChild, "href", `#mark-${kind}`);
  set(parts.progress, "max", String(Math.max(1, stream.size_bytes)));
  set(parts.progress, "value", String(stream.size_bytes ? stream.offset_bytes : stream.unsafe_bytes ? 0 : 1));
  set(parts.progress, "aria-label", `Of ${name} in S3`);
  say(parts.amount, amountText(stream, group));
  const lag = stream.unsafe_bytes && stream.lag_seconds !== null ? ` for ${duration(stream.lag_seconds)}` : "";
  say(parts.unsafe.value, stream.unsafe_bytes ? size(stream.unsafe_bytes) + lag : "nothing");
  say(parts.rate.value, rate(stream.rate_bytes_per_second));
  say(parts.last.value, ago(stream.last_chunk_at, now));
  say(parts.left.value, duration(stream.seconds_left));
  say(parts.length.value, length(stream));
  say(parts.when.value, clock(stream.modified_at));
  say(parts.stored.value, clock(stream.updated_at));
  for (const one of [parts.rate, parts.last, parts.left]) show(one.pair, group === "under-way");
  show(parts.unsafe.pair, group !== "ended" || stream.unsafe_bytes > 0);
  for (const one of [parts.when, parts.stored]) show(one.pair, group === "ended");
  show(parts.length.pair, group === "ended" && stream.duration_seconds >= 1);
  const unplayable = `Safe in S3, but no player can open it: ${visible(stream.unplayable_reason)}`;
  const trouble = stream.unplayable_reason ? unplayable : visible(stream.error);
  say(parts.error, trouble);
  say(parts.hint, stream.hint ? `What to do: ${visible(stream.hint)}` : "");
  show(parts.error, Boolean(trouble));
  show(parts.hint, Boolean(stream.hint));
  show(parts.play, Boolean(stream.play_url) && stream.playable !== false);
  set(parts.play, "aria-label", `Play ${name}`);
}

/** Show a report's recordings; `play` is called with the one whose button was pressed. */
export function showRecordings(report, play) {
  latest = { report, play };
  const wanted = byId("find").value.trim().toLowerCase();
  const holder = document.activeElement;
  const listed = new Set();
  for (const group of GROUPS) {
    const all = report.streams.filter((stream) => groupOf(stream) === group).sort(ORDERS[group]);
    const nodes = all.map((stream) => {
      listed.add(stream.id);
      if (!rows.has(stream.id)) rows.set(stream.id, makeRow(stream, play));
      const row = rows.get(stream.id);
      updateRow(row, stream, report.now);
      show(row.node, !wanted || stream.path.toLowerCase().includes(wanted));
      return row.node;
    });
    showGroup(group, nodes, wanted);
  }
  for (const id of [...rows.keys()]) if (!listed.has(id)) rows.delete(id);
  // Only a row that went to another group was moved; its button keeps the keyboard.
  if (holder !== document.activeElement && holder?.isConnected) holder.focus({ preventScroll: true });
  showRest(report, wanted);
}

function showGroup(group, nodes, wanted) {
  const section = byId(`group-${group}`);
  arrange(section.querySelector("ul"), nodes);
  const found = nodes.filter((node) => !node.hidden).length;
  say(section.querySelector(".count"), wanted ? `${found} of ${nodes.length}` : String(nodes.length));
  show(section, found > 0);
}

function showRest(report, wanted) {
  const found = document.querySelectorAll(".row:not([hidden])").length;
  say(byId("none"), wanted && report.streams.length ? "None of those listed has such a name." : "None yet.");
  show(byId("none"), found === 0);
  const left = report.streams_left_off ?? 0;
  const more = counted(left, "more recording is", "more recordings are");
  say(byId("left-off"), `${more} not listed: what failed comes first, then what is under way, then what ended last.`);
  show(byId("left-off"), left > 0);
}

byId("find").addEventListener("input", () => latest && showRecordings(latest.report, latest.play));
