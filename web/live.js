// Plays a fragmented MP4 while it grows: asks for what follows, piece by piece, and hands it to the browser.

import { findMovie, typeOf } from "./movie.js";

const PIECE_BYTES = 1 << 20;
const MOST_HEAD_BYTES = 16 << 20; // a recorder's moov with no samples has a few kB
const AHEAD_SECONDS = 30; // enough for any delay; more would only fill the browser's memory
const KEEP_SECONDS = 60; // behind the picture, to look back
const ASK_EVERY_MS = 2000;
const GROWING = ["active", "finalizing"];
const NOT_YET = "This kind of file can be played when its recording has ended, not before.";

const pause = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });

const once = (target, event, signal) =>
  new Promise((resolve, reject) => {
    target.addEventListener(event, resolve, { once: true, signal });
    target.addEventListener("error", () => reject(new Error("The browser cannot play this.")), { once: true, signal });
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });

/** The bytes from an offset, as many as are there; null when none are there yet. */
async function read(url, from, signal) {
  const range = { Range: `bytes=${from}-${from + PIECE_BYTES - 1}` };
  const reply = await fetch(url, { headers: range, cache: "no-store", signal });
  if (reply.status === 416) return null;
  if (reply.status !== 206) throw new Error(`The uploader cannot read this recording now (error ${reply.status}).`);
  return new Uint8Array(await reply.arrayBuffer());
}

/**
 * Play a recording that grows, until it has ended or `signal` says so.
 * Gives false when it is a plain file whose head is there, which the browser plays better by itself.
 */
export async function playLive(video, url, { state, note, signal }) {
  const Source = globalThis.ManagedMediaSource ?? globalThis.MediaSource;
  const { head, movie } = await readHead(url, signal);
  if (!movie) throw new Error(NOT_YET);
  if (!movie.fragmented) return false;
  const type = typeOf(movie);
  if (!Source?.isTypeSupported(type)) throw new Error(`This browser cannot play ${movie.codecs.join(" and ")}.`);
  const source = new Source();
  video.disableRemotePlayback = true; // Safari wants that before it takes a ManagedMediaSource
  video.src = URL.createObjectURL(source);
  await once(source, "sourceopen", signal);
  const buffer = source.addSourceBuffer(type);
  await append(buffer, video, head, signal);
  video.play().catch(() => {});
  await follow({ video, source, buffer, url, state, note, signal }, head.length);
  return true;
}

async function readHead(url, signal) {
  let head = new Uint8Array();
  for (;;) {
    const piece = await read(url, head.length, signal);
    const longer = new Uint8Array(head.length + (piece?.length ?? 0));
    longer.set(head);
    if (piece) longer.set(piece, head.length);
    head = longer;
    const movie = findMovie(head);
    if (movie !== undefined || head.length > MOST_HEAD_BYTES) return { head, movie };
    if (!piece) await pause(ASK_EVERY_MS, signal);
  }
}

async function follow(playing, offset) {
  const { video, source, buffer, url, state, signal } = playing;
  for (;;) {
    const ended = !(await isGrowing(state, signal)); // asked first: what came before its end is read below
    for (let piece; (piece = await read(url, offset, signal)); offset += piece.length) {
      await append(buffer, video, piece, signal);
      begin(video);
      while (aheadSeconds(video) > AHEAD_SECONDS) await once(video, "timeupdate", signal);
    }
    if (ended) break;
    await pause(ASK_EVERY_MS, signal);
  }
  if (source.readyState === "open") source.endOfStream();
}

async function isGrowing(state, signal) {
  const reply = await fetch(state, { cache: "no-store", signal });
  return reply.ok && GROWING.includes((await reply.json()).state);
}

/** Some recordings do not begin at 0. */
function begin(video) {
  const { buffered } = video;
  if (buffered.length && video.currentTime < buffered.start(0)) video.currentTime = buffered.start(0);
}

function aheadSeconds(video) {
  const { buffered, currentTime } = video;
  return buffered.length ? buffered.end(buffered.length - 1) - currentTime : 0;
}

async function append(buffer, video, bytes, signal) {
  for (;;) {
    try {
      buffer.appendBuffer(bytes);
      return await once(buffer, "updateend", signal);
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
    }
    const until = video.currentTime - KEEP_SECONDS;
    if (buffer.buffered.length && buffer.buffered.start(0) < until) {
      buffer.remove(0, until);
      await once(buffer, "updateend", signal);
    } else await once(video, "timeupdate", signal);
  }
}
