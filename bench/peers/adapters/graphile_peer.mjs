// graphile-worker on PostgreSQL: addJobs in batches of 1,000; local queue and batched completion.

import { createRequire } from "node:module";
import { drive, ran, url } from "./kit.mjs";

const require = createRequire(process.env.PEERS_MODULES + "/");
const { Logger, makeWorkerUtils, run } = require("graphile-worker");

const logger = new Logger(() => () => {});

if (process.argv[2] === "work") {
  await run({
    connectionString: url,
    logger,
    concurrency: 24,
    maxPoolSize: 25,
    taskList: { noop: async ({ text }) => ran(text) },
    preset: {
      worker: {
        localQueue: { size: 500 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
} else {
  const utils = await makeWorkerUtils({ connectionString: url, logger });
  await utils.migrate();
  const submit = (texts) =>
    texts.length === 1
      ? utils.addJob("noop", { text: texts[0] })
      : utils.addJobs(texts.map((text) => ({ identifier: "noop", payload: { text } })));
  const left = () =>
    utils.withPgClient(async (client) => {
      const sql = "SELECT count(*)::int AS jobs FROM graphile_worker._private_jobs";
      return (await client.query(sql)).rows[0].jobs;
    });
  await drive(submit, left, { chunk: 1000, lanes: 4 });
}
