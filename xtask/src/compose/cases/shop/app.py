import os
import socket
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def cache(*words):
    with socket.create_connection((os.environ["CACHE"], 6379), 5) as server:
        server.sendall((" ".join(words) + "\r\n").encode())
        return server.makefile().readline().strip()


def sql(text):
    done = subprocess.run(["psql", "-qtAc", text], capture_output=True, text=True, timeout=10)
    return done.stdout.strip() or done.stderr.strip()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            text = "well"
        elif self.path == "/buy":
            sql("create table if not exists sales (thing text)")
            sql("insert into sales values ('chair')")
            text = "bought"
        else:
            text = "sales %s visits %s" % (sql("select count(*) from sales"), cache("INCR", "visits"))
        body = (text + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("", 8000), Handler).serve_forever()
