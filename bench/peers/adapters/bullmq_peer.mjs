// BullMQ on Redis: addBulk in batches of 1,000; finished jobs are removed.

import { createRequire } from "node:module";
import { drive, ran, url } from "./kit.mjs";

const require = createRequire(process.env.PEERS_MODULES + "/");
const { Queue, Worker } = require("bullmq");

const { hostname: host, port } = new URL(url);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const OPTIONS = { removeOnComplete: true };

if (process.argv[2] === "work") {
  const worker = new Worker("peers", async (job) => ran(job.data.text), {
    connection,
    concurrency: 100,
  });
  process.on("SIGTERM", () => worker.close().then(() => process.exit(0)));
} else {
  const queue = new Queue("peers", { connection });
  const submit = (texts) =>
    texts.length === 1
      ? queue.add("noop", { text: texts[0] }, OPTIONS)
      : queue.addBulk(texts.map((text) => ({ name: "noop", data: { text }, opts: OPTIONS })));
  const left = async () => {
    const counts = await queue.getJobCounts("waiting", "active", "delayed", "failed");
    return Object.values(counts).reduce((sum, count) => sum + count, 0);
  };
  await drive(submit, left, { chunk: 1000, lanes: 4 });
}
