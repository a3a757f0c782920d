//! A headless Chromium, driven over the W3C WebDriver protocol: JSON over HTTP, of which a test needs
//! a dozen commands.
//!
//! Browser and driver run in the daemon's network namespace: they see its ports, and nothing else.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use serde_json::{Value, json};

use crate::{Daemon, http};

/// A browser window. Dropping it ends browser and driver.
#[derive(Debug)]
pub struct Browser<'a> {
    daemon: &'a Daemon,
    driver: Child,
    /// Kept open: the driver ends when it cannot write.
    _output: BufReader<ChildStdout>,
    port: u16,
    session: String,
}

/// The key under which a reference to an element is sent (WebDriver, 12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Longer than any page takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

impl<'a> Browser<'a> {
    /// Whether this machine has chromium and its driver.
    pub fn installed() -> bool {
        ["/usr/bin/chromium", "/usr/bin/chromedriver"].iter().all(|path| Path::new(path).exists())
    }

    pub fn start(daemon: &'a Daemon) -> Result<Self> {
        let mut driver = daemon
            .inside(Path::new("/usr/bin/chromedriver"))
            .arg("--port=0")
            // what the browser leaves there goes with the test's own directory
            .env("TMPDIR", daemon.directory())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run chromedriver")?;
        let mut output = BufReader::new(driver.stdout.take().expect("it was piped just above"));
        let mut said = String::new();
        let mut port = None;
        while port.is_none() {
            let line = said.len();
            if output.read_line(&mut said)? == 0 {
                driver.wait()?;
                bail!("chromedriver did not start: {said}");
            }
            let rest = said[line..].split("successfully on port ").nth(1);
            port = rest.and_then(|port| port.trim().trim_end_matches('.').parse().ok());
        }
        let port = port.context("a port")?;
        // Made before anything else can fail: its drop ends the driver.
        let mut browser = Self { daemon, driver, _output: output, port, session: String::new() };
        let profile = daemon.directory().join("chromium");
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1200,800",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "timeouts": {"script": TIMEOUT.as_millis(), "pageLoad": TIMEOUT.as_millis()},
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": flags},
        }}});
        let session = browser.command("POST", "/session", &capabilities)?;
        browser.session = session["sessionId"].as_str().context("a session")?.to_owned();
        Ok(browser)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let headers = [("Content-Type", "application/json; charset=utf-8")];
        let stream = self.daemon.connect(self.port)?;
        let answer = http::request(stream, method, path, &headers, &body)?;
        let mut value: Value = serde_json::from_str(&answer.body)
            .with_context(|| format!("{method} {path}: {}", answer.body))?;
        if answer.status != 200 {
            let message = value["value"]["message"].as_str().unwrap_or_default();
            bail!("{method} {path}: {message}");
        }
        Ok(value["value"].take())
    }

    fn post(&self, command: &str, body: &Value) -> Result<Value> {
        self.command("POST", &format!("/session/{}/{command}", self.session), body)
    }

    fn get(&self, command: &str) -> Result<Value> {
        self.command("GET", &format!("/session/{}/{command}", self.session), &Value::Null)
    }

    /// Opens an address, and returns when the page is loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.post("url", &json!({"url": url}))?;
        Ok(())
    }

    pub fn url(&self) -> Result<String> {
        Ok(self.get("url")?.as_str().unwrap_or_default().to_owned())
    }

    fn element(&self, selector: &str) -> Result<String> {
        let wanted = json!({"using": "css selector", "value": selector});
        let found = self.post("element", &wanted)?;
        Ok(found[ELEMENT].as_str().context("an element")?.to_owned())
    }

    /// Clicks on the first element of a CSS selector; a page that this opens is loaded on return.
    pub fn click(&self, selector: &str) -> Result<()> {
        let element = self.element(selector)?;
        self.post(&format!("element/{element}/click"), &json!({}))?;
        Ok(())
    }

    /// Replaces what a field holds, by keys.
    pub fn fill(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.element(selector)?;
        self.post(&format!("element/{element}/clear"), &json!({}))?;
        self.post(&format!("element/{element}/value"), &json!({"text": text}))?;
        Ok(())
    }

    /// Replaces what a field holds, at once.
    pub fn paste(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.element(selector)?;
        let body =
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))";
        self.post("execute/sync", &json!({"script": body, "args": [{ELEMENT: element}, text]}))?;
        Ok(())
    }

    /// The text of an element as it is seen.
    pub fn text(&self, selector: &str) -> Result<String> {
        let element = self.element(selector)?;
        let text = self.get(&format!("element/{element}/text"))?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// What a field holds.
    pub fn value(&self, selector: &str) -> Result<String> {
        let element = self.element(selector)?;
        let text = self.get(&format!("element/{element}/property/value"))?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// A computed style as red, green and blue.
    pub fn colour(&self, selector: &str, property: &str) -> Result<[u8; 3]> {
        let element = self.element(selector)?;
        let text = self.get(&format!("element/{element}/css/{property}"))?;
        let text = text.as_str().unwrap_or_default().to_owned();
        let numbers =
            text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
        match numbers.take(3).collect::<Vec<u8>>()[..] {
            [red, green, blue] => Ok([red, green, blue]),
            _ => bail!("{property} of {selector} is {text:?}"),
        }
    }

    /// Runs a function's body in the page.
    pub fn script(&self, body: &str) -> Result<Value> {
        self.post("execute/sync", &json!({"script": body, "args": []}))
    }

    /// Returns when an expression holds in the open page, or in one that is on its way: it is looked at
    /// again whenever the page changes.
    pub fn wait(&self, expression: &str) -> Result<()> {
        let body = format!(
            "const done = arguments[0];
             const holds = () => document.readyState !== 'loading' && Boolean({expression});
             if (holds()) return done(true);
             const look = () => {{
               if (holds()) {{ observer.disconnect(); done(true); }}
             }};
             const observer = new MutationObserver(look);
             const all = {{ subtree: true, childList: true, attributes: true, characterData: true }};
             observer.observe(document, all);
             document.addEventListener('readystatechange', look);"
        );
        let begin = Instant::now();
        loop {
            match self.post("execute/async", &json!({"script": body, "args": []})) {
                Ok(_) => return Ok(()),
                // The page has made room for the next one, in which the wait goes on. The driver then
                // says "unloaded" or, long before any, "timeout".
                Err(_) if begin.elapsed() < TIMEOUT => {}
                Err(cause) => {
                    let seen = self.text("body").unwrap_or_default();
                    let context = format!("waiting for {expression}; the page shows:\n{seen}");
                    return Err(cause.context(context));
                }
            }
        }
    }

    /// Returns when a page of this address is open: a click may return before the page that it asked for
    /// has begun to come.
    pub fn at(&self, url: &str) -> Result<()> {
        self.wait(&format!("location.href === {}", json!(url)))
    }

    /// The window's picture as PNG.
    pub fn screenshot(&self) -> Result<Vec<u8>> {
        let picture = self.get("screenshot")?;
        let picture = picture.as_str().context("a picture")?;
        Ok(base64::engine::general_purpose::STANDARD.decode(picture)?)
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends the browser and returns when it has; what cannot be ended dies with its driver.
            let path = format!("/session/{}", self.session);
            if let Err(cause) = self.command("DELETE", &path, &Value::Null) {
                eprintln!("ending the browser: {cause:#}");
            }
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
