//! The console: as a person uses it in a browser, and as somebody tries to get around its log-in.

use anyhow::{Context, Result, ensure};
use bulkhead_sys::testing::skip;
use bulkhead_tests::Daemon;
use bulkhead_tests::console::{Session, request};
use bulkhead_tests::gate::Gate;
use bulkhead_tests::tasks::{linked, ready, sleeper};
use bulkhead_tests::webdriver::Browser;
use serde_json::Value;

const CONSOLE: &str = "http://127.0.0.1:7480";

/// Whether a colour is seen as green.
fn green([red, green, blue]: [u8; 3]) -> bool {
    green > red.saturating_add(10) && green > blue.saturating_add(10)
}

#[test]
fn a_task_is_defined_run_watched_and_stopped_in_a_browser() -> Result<()> {
    if !Browser::installed() {
        skip("chromium and chromium-driver are not installed");
        return Ok(());
    }
    let daemon = Daemon::start()?;
    daemon.busybox("busybox")?;
    let gate = Gate::close(&daemon)?;
    let keys = daemon.credentials()?;
    let user = keys["user"].as_str().context("a user")?;
    let password = keys["password"].as_str().context("a password")?;
    let browser = Browser::start(&daemon)?;
    let at = |path: &str| browser.at(&format!("{CONSOLE}{path}"));

    browser.open(CONSOLE)?;
    at("/login")?;
    let log_in = |password: &str| -> Result<()> {
        browser.fill("input[name=user]", user)?;
        browser.fill("input[name=password]", password)?;
        browser.click("#log-in")
    };
    log_in("not the password")?;
    browser.wait("document.querySelector('.problem')")?;
    let said = browser.text(".problem")?;
    ensure!(said.starts_with("Wrong user or password."), "{said}");
    log_in(password)?;
    at("/clusters")?;

    // a task definition by form
    browser.click("a[href='/task-definitions']")?;
    at("/task-definitions")?;
    browser.click("#create")?;
    at("/task-definitions/new")?;
    browser.fill("#by-form input[name=family]", "by-form")?;
    let first = |field: &str| format!("fieldset:nth-of-type(1) [name={field}]");
    let second = |field: &str| format!("fieldset:nth-of-type(2) [name={field}]");
    browser.fill(&first("name"), "front")?;
    browser.fill(&first("image"), "busybox")?;
    browser.fill(&first("memory"), "32")?;
    browser.fill(&first("ports"), "8082:80/tcp")?;
    browser.fill(&first("links"), "back")?;
    browser.fill(&first("command"), "sleep, 10000")?;
    browser.fill(&second("name"), "back")?;
    browser.fill(&second("image"), "busybox")?;
    browser.fill(&second("memory"), "32")?;
    browser.fill(&second("command"), "[\"sleep\", \"10000\"]")?;
    browser.click("#create-by-form")?;
    at("/task-definitions/by-form/1")?;
    let shown: Value = serde_json::from_str(&browser.text("#json")?)?;
    let containers = &shown["containerDefinitions"];
    ensure!(containers[0]["portMappings"][0]["hostPort"] == 8082, "{shown}");
    ensure!(containers[0]["links"][0] == "back", "{shown}");
    ensure!(containers[0]["command"] == containers[1]["command"], "{shown}");

    // and by JSON, the first time with a slip
    browser.click("a[href='/task-definitions']")?;
    at("/task-definitions")?;
    browser.click("#create")?;
    at("/task-definitions/new")?;
    let definition = linked("SecurityApp", &gate.image, 8081).to_string();
    let slip = definition.replacen("\"family\":", "\"family\"", 1);
    browser.paste("#json", &slip)?;
    browser.click("#create-by-json")?;
    browser.wait("document.querySelector('.problem')")?;
    let said = browser.text(".problem")?;
    ensure!(said.contains("line 1 column"), "{said}");
    ensure!(browser.value("#json")? == slip, "the text was not kept");
    browser.paste("#json", &definition)?;
    browser.click("#create-by-json")?;
    at("/task-definitions/SecurityApp/1")?;

    // the machine has joined the cluster
    browser.click("a[href='/clusters']")?;
    at("/clusters")?;
    browser.click("#clusters a[href='/clusters/default']")?;
    at("/clusters/default")?;
    browser.wait("document.querySelector('#instances a.instance')")?;
    browser.click("#instances a.instance")?;
    browser.wait("document.querySelector('#public-ip')")?;
    ensure!(browser.text("#public-ip")? == "10.99.0.1", "{}", browser.text("#public-ip")?);
    ensure!(browser.text("#private-ip")? == "10.98.0.2", "{}", browser.text("#private-ip")?);

    // a task, from PENDING to RUNNING under the eyes of who looks
    browser.click(".trail a[href='/clusters/default']")?;
    at("/clusters/default")?;
    browser.click("#run-task")?;
    at("/clusters/default/run-task")?;
    browser.click("select[name=definition] option[value='SecurityApp:1']")?;
    browser.click("#run")?;
    at("/clusters/default")?;
    browser.script("window.neverReloaded = true")?;
    let pull = gate.wait()?;
    let status = "#tasks .status";
    ensure!(browser.text(status)? == "PENDING", "{}", browser.text(status)?);
    ensure!(!green(browser.colour(status, "background-color")?), "PENDING is green");
    drop((pull, gate));
    browser.wait("document.querySelector('#tasks .status').textContent === 'RUNNING'")?;
    ensure!(green(browser.colour(status, "background-color")?), "RUNNING is not green");

    // one that was started elsewhere comes by itself
    let elsewhere = Session::begin(&daemon)?;
    let fields = [("definition", "by-form:1"), ("count", "1")];
    ensure!(elsewhere.post("/clusters/default/run-task", &fields)?.status == 303, "run task");
    browser.wait("document.querySelectorAll('#tasks .status.RUNNING').length === 2")?;
    ensure!(browser.script("return window.neverReloaded")? == true, "the page was loaded anew");
    if let Some(path) = std::env::var_os("BULKHEAD_SCREENSHOT") {
        std::fs::write(path, browser.screenshot()?)?;
    }

    // from the task to its instance, and to the application
    ready(&daemon, "SecurityApp")?;
    browser.script(
        "[...document.querySelectorAll('#tasks tr')]
         .find(row => row.textContent.includes('SecurityApp')).querySelector('a.task').click()",
    )?;
    browser.wait("document.querySelector('#task a.application')")?;
    let task = browser.url()?;
    browser.click("#instance")?;
    browser.wait("document.querySelector('#public-ip')")?;
    ensure!(browser.text("#public-ip")? == "10.99.0.1", "the public IP");
    let link = browser.text("#applications a[href*='8081']")?;
    ensure!(link == "http://10.99.0.1:8081/", "{link}");
    browser.click("#applications a[href*='8081']")?;
    browser.wait("document.body.innerText.includes('the application')")?;
    let text = browser.text("body")?;
    ensure!(text == "by the proxy\nthe application", "{text}");
    ensure!(browser.url()? == link, "{}", browser.url()?);

    // and to its end
    browser.open(&task)?;
    browser.script("window.neverReloaded = true")?;
    browser.click("#stop")?;
    browser.wait("document.querySelector('#last-status').textContent === 'STOPPED'")?;
    browser.wait("document.querySelector('#task').innerText.includes('Stopped in the console')")?;
    browser.wait("!document.querySelector('#stop')")?;
    ensure!(daemon.connect(8081).is_err(), "the port is still served");

    browser.click("header form button")?;
    at("/login")?;
    browser.open(&format!("{CONSOLE}/clusters/default"))?;
    at("/login")?;
    Ok(())
}

#[test]
fn the_console_lets_in_nobody_else() -> Result<()> {
    let daemon = Daemon::start()?;

    // without a log-in
    for path in ["/", "/clusters", "/clusters/default", "/task-definitions/new", "/live"] {
        let answer = request(&daemon, "GET", path, &[], "")?;
        ensure!(answer.status == 303, "{path}: {answer:?}");
        ensure!(answer.header("location") == Some("/login"), "{path}: {answer:?}");
        let policy = answer.header("content-security-policy").unwrap_or_default();
        ensure!(policy.contains("default-src 'self'"), "{path}: {answer:?}");
        ensure!(policy.contains("frame-ancestors 'none'"), "{path}: {answer:?}");
    }
    let forged = [("Cookie", "bulkhead-session=0000")];
    ensure!(request(&daemon, "GET", "/clusters", &forged, "")?.status == 303, "a forged cookie");

    // by another name: a page of another domain whose name now means this machine
    for host in ["console.example.org", "console.example.org:7480", "localhost.example.org", ""] {
        let answer = request(&daemon, "GET", "/login", &[("Host", host)], "")?;
        ensure!(answer.status == 421, "{host}: {answer:?}");
    }

    // from a page of another site
    let session = Session::begin(&daemon)?;
    ensure!(session.get("/clusters")?.status == 200, "one's own page");
    for origin in ["http://example.org", "null", "http://127.0.0.1:80", "http://127.0.0.1:74800"] {
        let answer = session.post_from(origin, "/logout")?;
        ensure!(answer.status == 403, "{origin}: {answer:?}");
    }
    ensure!(session.get("/clusters")?.status == 200, "a foreign page logged out");

    // by text that a browser takes for markup
    let mut bad = sleeper("escaped", "busybox");
    let markup = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&";
    bad["containerDefinitions"][0]["command"] = serde_json::json!([markup]);
    let json = bad.to_string();
    let answer = session.post("/task-definitions", &[("how", "json"), ("json", &json)])?;
    ensure!(answer.status == 303, "{answer:?}");
    let shown = session.get("/task-definitions/escaped/1")?.body;
    ensure!(shown.contains("alert(1)") && !shown.contains("<script>alert"), "{shown}");
    ensure!(!shown.contains("<img src=x"), "{shown}");
    // also where it is shown as a problem, and where the text is kept
    bad["containerDefinitions"][0]["name"] = serde_json::json!(markup);
    let json = format!("</textarea>{bad}");
    for fields in [
        vec![("how", "json"), ("json", json.as_str())],
        vec![("how", "json"), ("json", &json[11..])],
        vec![("how", "form"), ("family", markup), ("name", markup), ("ports", markup)],
    ] {
        let answer = session.post("/task-definitions", &fields)?;
        ensure!(answer.status == 400, "{answer:?}");
        ensure!(!answer.body.contains("<script>alert"), "{}", answer.body);
        ensure!(!answer.body.contains("<img src=x"), "{}", answer.body);
        ensure!(answer.body.contains("role=\"alert\""), "{}", answer.body);
        ensure!(answer.body.matches("</textarea>").count() == 5, "{}", answer.body);
    }
    let fields = [("how", "form"), ("family", "kept"), ("name", "one"), ("ports", "80:x")];
    let kept = session.post("/task-definitions", &fields)?.body;
    for value in ["kept", "one", "80:x"] {
        ensure!(kept.contains(&format!("value=\"{value}\"")), "{value} was not kept: {kept}");
    }
    let path = "/clusters/default/tasks/%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    let missing = session.get(path)?;
    ensure!(missing.status / 100 == 4, "{missing:?}");
    ensure!(!missing.body.contains("<script>alert"), "{}", missing.body);

    // an open stream ends with its log-in
    let live = session.live()?;
    ensure!(session.post("/logout", &[])?.status == 303, "log out");
    live.end()?;
    ensure!(session.get("/clusters")?.status == 303, "the cookie of a log-in that has ended");
    Ok(())
}
