"use strict";

const element = (id) => document.getElementById(id);
const found = { text: "", words: [], segments: [], name: "recording" };
let recording = null;
let asking = false; // whether the browser is asking for the microphone

function status(message, isError = false) {
  element("status").textContent = message;
  element("status").classList.toggle("error", isError);
}

// Text ----------------------------------------------------------------------------------------------------------------

function clearAll(name) {
  Object.assign(found, { text: "", words: [], segments: [], name });
  element("text").replaceChildren();
  for (const id of ["legend", "downloads", "sound"]) element(id).hidden = true;
}

function addSegment(segment, words) {
  element("text").querySelector(".volatile")?.remove();
  const paragraph = document.createElement("p");
  for (const word of words) {
    const button = document.createElement("button");
    button.className = "word";
    button.type = "button";
    button.textContent = word.word;
    button.style.opacity = String(0.45 + 0.55 * (word.confidence ?? 1));
    button.title = `${word.start.toFixed(2)} s, confidence ${Math.round(100 * (word.confidence ?? 1))} %`;
    button.addEventListener("click", () => play(word));
    paragraph.append(button, " ");
    word.button = button;
  }
  element("text").append(paragraph);
  found.words.push(...words);
  found.segments.push(segment);
  found.text = found.segments.map((each) => each.text).join(" ");
}

function showPartial(stable, volatile) {
  let line = element("text").querySelector(".volatile");
  if (!line) {
    line = document.createElement("p");
    line.className = "volatile";
    element("text").append(line);
  }
  line.textContent = [stable, volatile].filter(Boolean).join(" ");
}

function finished() {
  element("text").querySelector(".volatile")?.remove();
  const any = found.words.length > 0;
  element("legend").hidden = !any;
  element("downloads").hidden = !any;
  status(any ? "Done." : "No speech was found.");
}

// Sound ---------------------------------------------------------------------------------------------------------------

let stopAt = Infinity;

function play(word) {
  const player = element("player");
  player.currentTime = Math.max(0, word.start - 0.05);
  stopAt = word.end + 0.08;
  player.play().catch(() => {}); // another word was chosen before this one began
}

element("player").addEventListener("timeupdate", () => {
  const player = element("player");
  if (player.currentTime >= stopAt) {
    player.pause();
    stopAt = Infinity;
  }
  for (const word of found.words) {
    word.button.classList.toggle("now", !player.paused && word.start <= player.currentTime && player.currentTime < word.end);
  }
});

async function showSound(blob) {
  URL.revokeObjectURL(element("player").src);
  element("player").src = URL.createObjectURL(blob);
  element("sound").hidden = false;
  try {
    const context = new OfflineAudioContext(1, 1, 16000);
    const samples = (await context.decodeAudioData(await blob.arrayBuffer())).getChannelData(0);
    drawWave(samples);
    drawSpectrogram(samples);
  } catch {
    for (const id of ["wave", "spectrogram"]) element(id).hidden = true; // the browser cannot decode it; the server can
  }
}

function drawWave(samples) {
  const canvas = element("wave"), pen = canvas.getContext("2d"), { width, height } = canvas;
  canvas.hidden = false;
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = getComputedStyle(document.body).getPropertyValue("--accent");
  const step = Math.max(1, samples.length / width);
  for (let x = 0; x < width; x++) {
    let low = 0, high = 0;
    for (let i = Math.floor(x * step); i < Math.min(samples.length, (x + 1) * step); i++) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    pen.fillRect(x, (1 - high) * height / 2, 1, Math.max(1, (high - low) * height / 2));
  }
}

function drawSpectrogram(samples) {
  const canvas = element("spectrogram"), pen = canvas.getContext("2d"), size = 512;
  const columns = Math.min(canvas.width, Math.max(1, Math.floor(samples.length / 80)));
  const image = pen.createImageData(columns, canvas.height);
  canvas.hidden = false;
  const step = Math.max(0, samples.length - size) / Math.max(1, columns - 1);
  for (let x = 0; x < columns; x++) {
    const power = powers(samples, Math.floor(x * step), size);
    for (let y = 0; y < canvas.height; y++) {
      const bin = Math.floor((canvas.height - 1 - y) / canvas.height * size / 2);
      const level = Math.max(0, Math.min(1, (10 * Math.log10(power[bin] + 1e-9) + 60) / 80));
      const at = 4 * (y * columns + x);
      image.data.set([255 * level ** 0.7, 255 * level ** 1.6, 255 * (0.25 + 0.35 * level - 0.5 * level ** 2), 255], at);
    }
  }
  const buffer = new OffscreenCanvas(columns, canvas.height);
  buffer.getContext("2d").putImageData(image, 0, 0);
  pen.drawImage(buffer, 0, 0, canvas.width, canvas.height);
}

// The power spectrum of a Hann window, by the radix-2 fast Fourier transform.
function powers(samples, start, size) {
  const real = new Float32Array(size), imaginary = new Float32Array(size), bits = Math.log2(size);
  for (let i = 0; i < size; i++) {
    let j = 0;
    for (let bit = 0; bit < bits; bit++) j |= ((i >> bit) & 1) << (bits - 1 - bit);
    real[j] = (samples[start + i] ?? 0) * (0.5 - 0.5 * Math.cos(2 * Math.PI * i / size));
  }
  for (let half = 1; half < size; half *= 2) {
    for (let k = 0; k < half; k++) {
      const cos = Math.cos(Math.PI * k / half), sin = -Math.sin(Math.PI * k / half);
      for (let i = k; i < size; i += 2 * half) {
        const j = i + half, re = real[j] * cos - imaginary[j] * sin, im = real[j] * sin + imaginary[j] * cos;
        real[j] = real[i] - re;
        imaginary[j] = imaginary[i] - im;
        real[i] += re;
        imaginary[i] += im;
      }
    }
  }
  return real.map((value, i) => value * value + imaginary[i] * imaginary[i]);
}

// Files ---------------------------------------------------------------------------------------------------------------

const key = () => sessionStorage.getItem("wavasr-key") ?? "";

async function transcribe(file) {
  clearAll(file.name.replace(/\.[^.]*$/, ""));
  status("Recognising…");
  showSound(file);
  const form = new FormData();
  form.append("file", file);
  form.append("response_format", "verbose_json");
  for (const granularity of ["word", "segment"]) form.append("timestamp_granularities[]", granularity);
  try {
    const headers = key() ? { Authorization: `Bearer ${key()}` } : {};
    const response = await fetch("/v1/audio/transcriptions", { method: "POST", body: form, headers });
    element("login").hidden = response.status !== 401;
    const body = await response.json();
    if (!response.ok) throw new Error(body.error.message);
    let from = 0;
    for (const segment of body.segments) {
      const words = body.words.slice(from).filter((word) => word.start < segment.end);
      from += words.length;
      addSegment({ text: segment.text, start: segment.start, end: segment.end }, words);
    }
    finished();
  } catch (error) {
    status(error.message, true);
  }
}

// Microphone ----------------------------------------------------------------------------------------------------------

async function record() {
  if (recording) {
    recording.stop();
    return;
  }
  if (asking) return;
  clearAll("recording");
  asking = true;
  let stream, context;
  try {
    // What browsers do for telephony takes from speech what the recogniser uses.
    const plain = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
    context = new AudioContext();
    await context.audioWorklet.addModule("/page/recorder.js");
    send(stream, context);
  } catch (error) {
    stream?.getTracks().forEach((track) => track.stop());
    context?.close();
    status(`The microphone cannot be used: ${error.message}`, true);
  } finally {
    asking = false;
  }
}

// Streams what the microphone hears to the server, until `recording.stop` or the server ends it.
function send(stream, context) {
  const node = new AudioWorkletNode(context, "recorder"), blocks = [];
  const protocols = key() ? ["wavasr", `openai-insecure-api-key.${key()}`] : ["wavasr"];
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/stream`, protocols);
  const source = context.createMediaStreamSource(stream);
  let ended = false;

  recording = {
    stop() {
      stream.getTracks().forEach((track) => track.stop());
      source.disconnect();
      element("record").setAttribute("aria-pressed", "false");
      element("record").textContent = "Record";
      recording = null;
      if (socket.readyState === WebSocket.OPEN) {
        socket.send(JSON.stringify({ type: "finish" }));
        status("Recognising the rest…");
      } else {
        ended = true;
        socket.close();
        finished();
      }
    },
  };
  element("record").setAttribute("aria-pressed", "true");
  element("record").textContent = "Stop";
  socket.addEventListener("open", () => {
    socket.send(JSON.stringify({ sample_rate: context.sampleRate }));
    node.port.onmessage = ({ data }) => {
      blocks.push(data);
      if (socket.readyState === WebSocket.OPEN) socket.send(data.buffer);
    };
    source.connect(node);
    status("Listening…");
  });
  socket.addEventListener("message", ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === "partial") showPartial(event.stable, event.volatile);
    if (event.type === "final") {
      const words = event.words.map((word) => ({ ...word, start: word.start_s, end: word.end_s }));
      addSegment({ text: event.text, start: event.start_s, end: event.end_s }, words);
    }
    if (event.type === "finished") {
      ended = true;
      showSound(wavFile(blocks, context.sampleRate));
      finished();
    }
  });
  socket.addEventListener("close", ({ code, reason }) => {
    context.close();
    if (ended) return;
    recording?.stop();
    element("login").hidden = code !== 1006 && code !== 1008;
    status(reason || `The connection ended (${code}).`, true);
  });
}

function wavFile(blocks, rate) {
  const samples = blocks.reduce((sum, block) => sum + block.length, 0);
  const header = new DataView(new ArrayBuffer(44));
  const text = (at, value) => [...value].forEach((letter, i) => header.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + 2 * samples, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, rate, true);
  header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, 2 * samples, true);
  return new Blob([header, ...blocks], { type: "audio/wav" });
}

// Downloads -----------------------------------------------------------------------------------------------------------

function clock(seconds, separator) {
  const ms = Math.round(1000 * seconds), pad = (value, digits) => String(value).padStart(digits, "0");
  const [hours, minutes, rest] = [Math.floor(ms / 3600000), Math.floor(ms / 60000) % 60, Math.floor(ms / 1000) % 60];
  return `${pad(hours, 2)}:${pad(minutes, 2)}:${pad(rest, 2)}${separator}${pad(ms % 1000, 3)}`;
}

const writers = {
  txt: () => found.segments.map((segment) => segment.text).join("\n") + "\n",
  srt: () => found.segments.map((segment, i) =>
    `${i + 1}\n${clock(segment.start, ",")} --> ${clock(segment.end, ",")}\n${segment.text}\n`).join("\n"),
  vtt: () => "WEBVTT\n\n" + found.segments.map((segment) =>
    `${clock(segment.start, ".")} --> ${clock(segment.end, ".")}\n${segment.text}\n`).join("\n"),
  json: () => JSON.stringify({
    text: found.text,
    segments: found.segments,
    words: found.words.map(({ word, start, end, confidence }) => ({ word, start_s: start, end_s: end, confidence })),
  }, null, 1) + "\n",
};

function download(format) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([writers[format]()], { type: "text/plain" }));
  link.download = `${found.name}.${format}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

// Events --------------------------------------------------------------------------------------------------------------

element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) transcribe(target.files[0]);
  target.value = "";
});
element("record").addEventListener("click", record);
element("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("wavasr-key", element("key").value);
  element("login").hidden = true;
  status("The key is kept until this page is closed. Try again.");
});
element("downloads").addEventListener("click", ({ target }) => {
  if (target.dataset.format) download(target.dataset.format);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) transcribe(event.dataTransfer.files[0]);
  });
}
