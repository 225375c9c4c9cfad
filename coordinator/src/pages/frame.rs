//! What every page has around it: head, style and the small script that keeps it live.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");

/// A whole page. `events` is the path of its event stream.
pub fn page(title: &str, events: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><path d='M0 9q4-5 8 0t8 0v7H0z' fill='%230e7c86'/></svg>";
                link rel="stylesheet" href="/style.css";
            }
            body data-events=(events) {
                header {
                    a.brand href="/" { (wave()) "Tidewater" }
                    span #live .live role="status" { "not live" }
                }
                main { (body) }
                script src="/live.js" {}
            }
        }
    }
}

fn wave() -> Markup {
    html! {
        svg viewBox="0 0 24 16" width="24" height="16" aria-hidden="true" {
            path d="M1 6q5.5-7 11 0t11 0M1 13q5.5-7 11 0t11 0" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" {}
        }
    }
}

/// A moment as a `time` element, shown as a time of day in UTC.
pub fn time(at: protocol::ids::UnixMs) -> Markup {
    let whole = crate::api::words::timestamp(at);
    html! { time datetime=(whole) title=(whole) { (whole.get(11..19).unwrap_or(&whole)) } }
}

/// `/style.css`
pub async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE)
}

/// `/live.js`
pub async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

/// A page as an answer: nothing from elsewhere is loaded, and nothing of it is kept.
pub fn answer(page: Markup) -> Response {
    let policy = "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; connect-src 'self'; \
                  img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, page.into_string()).into_response()
}
