// The player: a dialog that plays a recording out of its chunks, also one that still grows.

import { playLive } from "./live.js";
import { address, byId, say, set, show } from "./nodes.js";
import { visible } from "./words.js";

const GROWING = ["active", "finalizing"];
const REASONS = {
  2: "The connection broke off. Close this and play it again.",
  3: "This recording is damaged here, or the browser cannot decode it.",
  4: "The browser cannot play this recording: not finished, or in a format that it does not know.",
};

let shown = null; // the stream that is played
let stop = null; // ends what feeds the video
let jump = null; // goes on elsewhere

/** Open the dialog and play. */
export function openPlayer(stream) {
  end();
  shown = stream;
  const growing = GROWING.includes(stream.state);
  const url = address(stream.play_url);
  say(byId("player-name"), visible(stream.path));
  say(byId("player-note"), growing ? "Still being recorded. This plays what is in S3." : "");
  set(byId("player-save"), "href", url);
  set(byId("player-save"), "download", stream.path.split("/").pop());
  show(byId("player-save"), !growing);
  byId("player").showModal();
  show(byId("player-jump"), false);
  if (growing) feed(stream, url, true);
  else start(url);
}

/** Play a file as it is; the browser asks for the parts that it needs. */
function start(url) {
  const video = byId("video");
  video.src = url;
  video.play().catch(() => {}); // the controls are there for that
}

async function feed(stream, url, newest) {
  const mine = (stop = new AbortController());
  const begun = (jumps) => {
    say(byId("player-jump"), newest ? "Play from the beginning" : "Play what is recorded now");
    show(byId("player-jump"), jumps);
    jump = () => feed(stream, url, !newest);
  };
  const state = address(`api/streams/${encodeURIComponent(stream.id)}`);
  const note = (text) => say(byId("player-note"), text);
  try {
    const played = await playLive(byId("video"), url, { state, newest, begun, signal: mine.signal });
    if (!played && !mine.signal.aborted) start(url);
  } catch (error) {
    if (!mine.signal.aborted) note(visible(error.message));
  }
}

/** Tell what became of the recording that is played. */
export function refreshPlayer(report) {
  const now = shown && report.streams.find((stream) => stream.id === shown.id);
  if (!now || now.state === shown.state) return;
  if (GROWING.includes(shown.state) && !GROWING.includes(now.state)) {
    say(byId("player-note"), "The recording has ended. Close this and play it again to see it as a whole.");
  }
  shown = now;
}

function end() {
  shown = jump = null;
  unload();
}

function unload() {
  const video = byId("video");
  stop?.abort();
  stop = null;
  video.pause();
  if (video.src.startsWith("blob:")) URL.revokeObjectURL(video.src);
  video.removeAttribute("src");
  video.load();
}

byId("player-jump").addEventListener("click", () => {
  unload();
  jump();
});
byId("player").addEventListener("close", end);
byId("player-close").addEventListener("click", () => byId("player").close());
byId("video").addEventListener("error", () => {
  const { error, src } = byId("video");
  if (shown && src && error) say(byId("player-note"), REASONS[error.code] ?? "");
});
