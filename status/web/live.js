// Plays a fragmented MP4 while it grows: asks for what follows, piece by piece, and hands it to the browser.

import { Fragments, findFragment, findMovie, joined, typeOf } from "./movie.js";

const PIECE_BYTES = 1 << 20;
const MAX_HEAD_BYTES = 16 << 20; // a recorder's moov with no samples has a few kB
const NEWEST_BYTES = 4 << 20; // so far before the end somebody begins who wants to see what is recorded now
const MAX_NEWEST_BYTES = 64 << 20; // one fragment of a recorder that seldom begins a new one
const AHEAD_SECONDS = 30; // enough for any delay; more would only fill the browser's memory
const KEEP_SECONDS = 60; // behind the picture, to look back
const ASK_EVERY_MS = 2000;
const GROWING = ["active", "finalizing"];
const NOT_YET = "This kind of file can be played when its recording has ended, not before.";

/** Wait until `begin` calls back; `signal` ends it with an error. Nothing stays behind on the signal. */
function settled(signal, begin) {
  return new Promise((resolve, reject) => {
    const over = new AbortController();
    const then = (act) => (value) => {
      over.abort();
      act(value);
    };
    signal.addEventListener("abort", then(() => reject(signal.reason)), { signal: over.signal });
    begin(then(resolve), then(reject), over.signal);
  });
}

const pause = (ms, signal) => settled(signal, (resolve) => setTimeout(resolve, ms));

const once = (target, event, signal) =>
  settled(signal, (resolve, reject, over) => {
    target.addEventListener(event, resolve, { signal: over });
    target.addEventListener("error", () => reject(new Error("The browser cannot play this.")), { signal: over });
  });

/** Ask until there is an answer: the uploader may be started anew, or S3 be away for a while. */
async function ask(url, headers, signal) {
  for (;;) {
    try {
      const reply = await fetch(url, { headers, cache: "no-store", signal });
      if (reply.status < 500) return { status: reply.status, bytes: new Uint8Array(await reply.arrayBuffer()) };
    } catch (error) {
      if (signal.aborted) throw error;
    }
    await pause(ASK_EVERY_MS, signal);
  }
}

/** How many bytes of a recording can be played now, and whether more will come. */
async function look(state, signal) {
  const { status, bytes } = await ask(state, {}, signal);
  if (status !== 200) throw new Error(`The uploader does not know this recording any more (error ${status}).`);
  const stream = JSON.parse(new TextDecoder().decode(bytes));
  return { bytes: stream.offset_bytes, growing: GROWING.includes(stream.state) };
}

/** The bytes from an offset, as many as are there; null when none are there yet. */
async function read(url, from, signal) {
  const range = { Range: `bytes=${from}-${from + PIECE_BYTES - 1}` };
  const { status, bytes } = await ask(url, range, signal);
  if (status === 416) return null;
  if (status !== 206) throw new Error(`The uploader does not give this recording (error ${status}).`);
  return bytes;
}

/** Where the newest fragment begins that has some of the recording after it; null: play from the beginning. */
async function findNewest(url, from, bytes, signal) {
  for (let back = NEWEST_BYTES; back <= MAX_NEWEST_BYTES && bytes - back > from; back *= 2) {
    for (let at = bytes - back; at < bytes - back / 2; at += PIECE_BYTES - 16) {
      const piece = await read(url, at, signal);
      const found = piece ? findFragment(piece) : -1;
      if (found >= 0) return at + found;
    }
  }
  return null;
}

/**
 * Play a recording that grows, until it has ended or `signal` says so; `newest`: what is recorded now, not its
 * beginning. `begun` is called when it plays, and told whether these are two places.
 * Gives false when it is a plain file with its head in front, or ended: the browser plays that by itself.
 */
export async function playLive(video, url, { state, newest, begun, signal }) {
  const Source = globalThis.MediaSource ?? globalThis.ManagedMediaSource; // iPhones have the latter only
  const { head, movie, bytes } = await readHead(url, state, signal);
  if (!movie) throw new Error(NOT_YET);
  if (!movie.fragmented) return false;
  const type = typeOf(movie);
  if (!Source?.isTypeSupported(type)) throw new Error(`This browser cannot play ${movie.codecs.join(" and ")}.`);
  const source = new Source();
  video.disableRemotePlayback = true; // Safari wants that before it takes a ManagedMediaSource
  video.src = URL.createObjectURL(source);
  await once(source, "sourceopen", signal);
  const buffer = source.addSourceBuffer(type);
  const place = newest ? await findNewest(url, head.length, bytes, signal) : null;
  const fragments = place === null ? new Fragments() : Fragments.from(place);
  const first = place === null ? fragments.take(head) : head.subarray(0, movie.ends);
  await append(buffer, video, first, signal);
  begin(video);
  begun(bytes - head.length > NEWEST_BYTES);
  video.play().catch(() => {});
  await follow({ video, source, buffer, fragments, url, state, signal }, place ?? head.length);
  return true;
}

async function readHead(url, state, signal) {
  let head = new Uint8Array();
  for (;;) {
    const { bytes, growing } = await look(state, signal);
    while (head.length < bytes) {
      const piece = await read(url, head.length, signal);
      if (!piece) break;
      head = joined([head, piece]);
      const movie = findMovie(head);
      if (movie !== undefined || head.length > MAX_HEAD_BYTES) return { head, movie, bytes };
    }
    if (!growing) return { head, movie: { fragmented: false }, bytes };
    await pause(ASK_EVERY_MS, signal);
  }
}

async function follow(playing, offset) {
  const { video, source, buffer, fragments, url, state, signal } = playing;
  for (;;) {
    const { bytes, growing } = await look(state, signal);
    for (let piece; offset < bytes && (piece = await read(url, offset, signal)); offset += piece.length) {
      await append(buffer, video, fragments.take(piece), signal);
      begin(video);
      while (aheadSeconds(video) > AHEAD_SECONDS) await once(video, "timeupdate", signal);
    }
    if (!growing && offset >= bytes) break;
    await pause(ASK_EVERY_MS, signal);
  }
  if (source.readyState === "open") source.endOfStream();
}

/** Not each recording begins at 0: ffmpeg's hybrid files hold their first second where no browser looks. */
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
