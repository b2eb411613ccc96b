// What the adapters in JavaScript share; the same orders and records as kit.py.

import { appendFileSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { createInterface } from "node:readline";

const PAYLOAD_BYTES = 100;
const NUMBER_DIGITS = 12;
const RECORD_BYTES = 16;

export const url = process.env.PEERS_URL ?? "";

// Nanoseconds since 1970 from the same wall clock as Python's time.time_ns, at microseconds.
const nowNs = () => BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;

const payload = (number) =>
  String(number).padStart(NUMBER_DIGITS, "0").padEnd(PAYLOAD_BYTES, "x");

function record(number, atNs) {
  const bytes = Buffer.allocUnsafe(RECORD_BYTES);
  bytes.writeBigInt64LE(BigInt(number), 0);
  bytes.writeBigInt64LE(atNs, 8);
  return bytes;
}

let ranFile = null;

export function ran(text) {
  const atNs = nowNs();
  ranFile ??= openSync(join(process.env.PEERS_RECORDS, `ran-${process.pid}.bin`), "a");
  writeSync(ranFile, record(Number(text.slice(0, NUMBER_DIGITS)), atNs));
}

const answer = (value) => process.stdout.write(JSON.stringify(value) + "\n");

async function submitAll(order, submit, chunk, lanes) {
  const texts = Array.from({ length: order.count }, (_, index) => payload(order.first + index));
  let next = 0;
  const lane = async () => {
    while (next < texts.length) {
      next += chunk;
      await submit(texts.slice(next - chunk, next));
    }
  };
  const beganNs = nowNs();
  await Promise.all(Array.from({ length: lanes }, lane));
  return { began_ns: Number(beganNs), ended_ns: Number(nowNs()) };
}

async function pace(order, submit) {
  const start = performance.now();
  const beganNs = nowNs();
  const records = [];
  const running = [];
  for (let index = 0; index < order.count; index++) {
    const waitMs = start + (index * 1000) / order.rate - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    const text = payload(order.first + index);
    records.push(record(order.first + index, nowNs()));
    running.push(submit([text]));
  }
  await Promise.all(running);
  appendFileSync(join(process.env.PEERS_RECORDS, "sent.bin"), Buffer.concat(records));
  return { began_ns: Number(beganNs), ended_ns: Number(nowNs()) };
}

export async function drive(submit, left, { chunk, lanes }) {
  answer({ ready: 1 });
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    if (order.do === "submit") answer(await submitAll(order, submit, chunk, lanes));
    else if (order.do === "pace") answer(await pace(order, submit));
    else answer({ left: await left() });
  }
  process.exit(0);
}
