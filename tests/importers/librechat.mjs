// Imports the relay's Actions document as LibreChat does and calls its operations with LibreChat's executor.
//
//   node librechat.mjs RELAY [CALLS]
//
// RELAY is the relay's address without a path. CALLS is a JSON file, operationId to arguments; without it nothing is
// called. The key stands in the variable RELAY_IMPORT_KEY. Prints one JSON object: what the importer says of the document
// and of its host, the operations in its order, and the reply to each call.

import { readFile } from "node:fs/promises";
import { argv, env, exit, stderr, stdout } from "node:process";

import {
  AuthorizationTypeEnum,
  AuthTypeEnum,
  openapiToFunction,
  validateActionDomain,
  validateAndParseOpenAPISpec,
} from "librechat-data-provider";

const TIMEOUT_SECONDS = 50; // an assistant gives up after 45

const [relay, callsFile] = argv.slice(2);
if (!relay) {
  stderr.write("librechat: the first argument must be the relay's address.\n");
  exit(2);
}

const served = await fetch(`${relay}/openapi.actions.json`, { signal: AbortSignal.timeout(TIMEOUT_SECONDS * 1000) });
if (!served.ok) {
  stderr.write(`librechat: the document was answered with ${served.status}.\n`);
  exit(1);
}
const validation = validateAndParseOpenAPISpec(await served.text());
if (!validation.status) {
  stderr.write(`librechat: the document was not imported: ${validation.message}\n`);
  exit(1);
}
const { spec, serverUrl, message } = validation;
const domain = validateActionDomain(new URL(serverUrl).hostname, serverUrl);

// The served document names the public host, which is not this machine: calls go to the relay all the same.
const { functionSignatures, requestBuilders } = openapiToFunction({ ...spec, servers: [{ url: relay }] }, true);
const operations = functionSignatures.map((signature) => {
  const request = requestBuilders[signature.name];
  return {
    name: signature.name,
    method: request.method.toUpperCase(),
    path: request.path,
    consequential: request.isConsequential,
    tool: signature.toObjectTool(),
  };
});

const calls = [];
if (callsFile) {
  const metadata = {
    auth: { type: AuthTypeEnum.ServiceHttp, authorization_type: AuthorizationTypeEnum.Bearer },
    api_key: env.RELAY_IMPORT_KEY ?? "",
  };
  for (const [name, parameters] of Object.entries(JSON.parse(await readFile(callsFile, "utf8")))) {
    const executor = requestBuilders[name].createExecutor().setParams(parameters);
    await executor.setAuth(metadata);
    calls.push({ name, ...(await reply(executor.execute())) });
  }
}
// A call that is late may still be open; nothing waits for it.
stdout.write(`${JSON.stringify({ message, serverUrl, domain, operations, calls })}\n`, () => exit(0));

async function reply(running) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no reply within ${TIMEOUT_SECONDS} seconds`)), TIMEOUT_SECONDS * 1000);
  });
  try {
    const { status, headers, data } = await Promise.race([running, late]);
    return { status, type: headers["content-type"] ?? "", body: data };
  } catch (error) {
    if (!error.response) {
      return { status: 0, type: "", body: error.message };
    }
    const { status, headers, data } = error.response;
    return { status, type: headers["content-type"] ?? "", body: data };
  } finally {
    clearTimeout(timer);
  }
}
