// The pages of FossaWork: what lies in the working directory, on port 3000.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

http
  .createServer((request, response) => {
    const name = path.basename(new URL(request.url, "http://localhost").pathname) || "index.html";
    fs.readFile(path.join(process.cwd(), name), (error, data) => {
      response.writeHead(error ? 404 : 200, { "Content-Type": "text/html; charset=utf-8" });
      response.end(error ? "not found" : data);
    });
  })
  .listen(3000, "127.0.0.1");
