//! Who gets into the console: the first account, users, roles, programs; and how one gets out.

use portcullis_testkit::{Client, Request};

use super::{PASSWORD, Scene, open};

async fn sign_in(scene: &Scene, name: &str, password: &str) {
    scene.go("/login").await;
    scene.browser.fill_anew("#name", name).await;
    scene.browser.fill("#password", password).await;
    scene.browser.click("main button").await;
}

async fn sign_out(scene: &Scene) {
    scene.browser.click(".who form button").await;
    scene.browser.wait_for("h1", "Sign in").await;
}

#[test]
fn users_come_by_links_see_what_their_role_may_and_are_kept_out_when_disabled() {
    open(
        |_| (),
        async |scene| {
            let browser = &scene.browser;
            scene.go("/settings/users").await;
            browser.fill("#name", "bob").await;
            browser.click_on("//button[.='Add']").await;
            let link = browser.text(".notice code").await;
            assert!(link.contains("/setup?token="), "{link}");
            scene.go("/settings/users").await;
            assert!(!browser.text("main").await.contains("token="), "it is shown once");

            // Back shows nothing after signing out.
            scene.go("/blocks").await;
            sign_out(scene).await;
            browser.back().await;
            browser.wait_for("h1", "Sign in").await;

            browser.go(&link).await;
            browser.wait_for("h1", "Choose a password").await;
            browser.fill("#password", PASSWORD).await;
            browser.fill("#again", PASSWORD).await;
            browser.click("main button").await;
            browser.wait_for(".who", "bob").await;
            // A viewer has nothing to press, and is refused where he presses all the same.
            for address in [
                "/blocks",
                "/allows",
                "/findings",
                "/limits",
                "/settings",
                "/settings/users",
                "/settings/tokens",
                "/settings/tasks",
            ] {
                scene.go(address).await;
                let pressable = "return [...document.querySelectorAll('main form[method=post]')].flatMap((form) => \
                             [...form.elements]).filter((part) => part.type !== 'hidden' && !part.disabled).length";
                assert_eq!(browser.script(pressable).await, 0, "{address}");
            }
            let press = "const done = arguments[0]; const token = document.querySelector('[name=form_token]').value; \
                     fetch('/blocks', { method: 'POST', body: new URLSearchParams({ form_token: token, network: \
                     '203.0.113.9' }) }).then((answer) => done(answer.status))";
            assert_eq!(browser.script_that_waits(press).await, 403);
            assert_eq!(scene.status_of("203.0.113.9"), 200);
            sign_out(scene).await;

            sign_in(scene, "alice", PASSWORD).await;
            browser.wait_for("h1", "Overview").await;
            scene.go("/settings/users").await;
            browser.click_on("//tr[contains(., 'bob')]//button[starts-with(., 'Disable')]").await;
            assert!(browser.accept().await.contains("keep them out"));
            browser.wait_for(".notice", "bob is disabled").await;
            scene.go("/settings/audit?action=user-disable").await;
            sign_out(scene).await;
            sign_in(scene, "bob", PASSWORD).await;
            browser.wait_for(".notice.error", "wrong").await;
        },
    );
}

#[test]
fn a_token_is_shown_once_works_and_is_revoked_and_wrong_passwords_lock_the_name() {
    open(
        |_| (),
        async |scene| {
            let browser = &scene.browser;
            scene.go("/settings/tokens").await;
            browser.fill("#name", "backup").await;
            browser.click_on("//button[.='Make']").await;
            let token = browser.text(".notice code").await;
            assert!(token.starts_with("pk_"), "{token}");
            let ask = || {
                let request =
                    Request::get("/api/v1/blocks").header("Authorization", &format!("Bearer {token}"));
                Client::connect(scene.gateway.console()).send(&request).status()
            };
            assert_eq!(ask(), 200);
            scene.go("/settings/tokens").await;
            assert!(!browser.text("main").await.contains(&token), "it is shown once");
            browser.click_on("//tr[contains(., 'backup')]//button[starts-with(., 'Revoke')]").await;
            assert!(browser.accept().await.contains("Revoke"));
            browser.wait_for(".empty", "There are no tokens").await;
            assert_eq!(ask(), 401);

            scene.go("/settings/audit").await;
            for row in ["token-add", "token-revoke", "login", "user-add"] {
                browser.wait_for("tbody", row).await;
            }
            browser.click_on("//a[.='token-revoke']").await;
            browser.wait_for("tbody", "backup").await;
            assert_eq!(browser.script("return document.querySelectorAll('tbody tr').length").await, 1);

            sign_out(scene).await;
            for _ in 0..5 {
                sign_in(scene, "alice", "four new lamps").await;
                browser.wait_for(".notice.error", "Name or password is wrong.").await;
            }
            sign_in(scene, "alice", PASSWORD).await;
            browser.wait_for(".notice.error", "portcullis console unlock alice").await;
            scene.gateway.cli_ok(&["console", "unlock", "alice"]);
            sign_in(scene, "alice", PASSWORD).await;
            browser.wait_for("h1", "Overview").await;
            // Where one was going to.
            sign_out(scene).await;
            scene.go("/requests?path=%2Fa").await;
            browser.fill("#name", "alice").await;
            browser.fill("#password", PASSWORD).await;
            browser.click("main button").await;
            browser.wait_for("h1", "Requests").await;
            assert_eq!(browser.url().await.query(), Some("path=%2Fa"));
        },
    );
}
