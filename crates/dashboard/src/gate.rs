//! Who is let in, and what every answer forbids the browser. Pure.
//!
//! A request has to come to this machine by its loopback name, which a page of another site cannot
//! fake (it is what a rebound name fails), and has to carry the token: in the first address a person
//! opens, in the cookie that gave them, or in a script's `Authorization` header.

use crate::token::Token;

/// Names a browser of this machine knows this server by. The port is not looked at: a tunnel has one
/// of its own, and a rebound name fails all the same.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// What of a request decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Knock<'a> {
    /// The method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// What stands behind `?`.
    pub query: Option<&'a str>,
    /// `Host`.
    pub host: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `Cookie`.
    pub cookie: Option<&'a str>,
    /// `Authorization`.
    pub authorization: Option<&'a str>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered.
    Enter,
    /// It is answered, and the browser is given its cookie.
    Greet,
    /// It does not say the token.
    NoToken,
    /// It came by another name than this machine's.
    WrongHost,
    /// A page of another site sent it.
    WrongOrigin,
    /// It is no look.
    WrongMethod,
}

/// Judges a request.
#[must_use]
pub fn judge(knock: &Knock<'_>, token: &Token, cookie_name: &str) -> Verdict {
    if !knock.host.is_some_and(is_loopback) {
        return Verdict::WrongHost;
    }
    if let Some(origin) = knock.origin
        && !origin.strip_prefix("http://").is_some_and(is_loopback)
    {
        return Verdict::WrongOrigin;
    }
    if !matches!(knock.method, "GET" | "HEAD") {
        return Verdict::WrongMethod;
    }
    let bearer = knock.authorization.and_then(|value| value.strip_prefix("Bearer "));
    if cookie(knock.cookie, cookie_name).or(bearer).is_some_and(|said| token.is(said)) {
        return Verdict::Enter;
    }
    let said =
        knock.query.and_then(|query| query.split('&').find_map(|p| p.strip_prefix("token=")));
    if knock.path == "/" && said.is_some_and(|said| token.is(said)) {
        return Verdict::Greet;
    }
    Verdict::NoToken
}

fn is_loopback(host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    HOSTS.contains(&name) && port.parse::<u16>().is_ok()
}

fn cookie<'a>(header: Option<&'a str>, name: &str) -> Option<&'a str> {
    header?.split(';').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Name of the cookie of a server on this port: two dashboards do not log each other out.
#[must_use]
pub fn cookie_name(port: u16) -> String {
    format!("crrl-dashboard-{port}")
}

/// The cookie: for this machine's pages only, out of reach of scripts, gone with the browser.
#[must_use]
pub fn set_cookie(port: u16, token: &Token) -> String {
    format!("{}={}; Path=/; HttpOnly; SameSite=Strict", cookie_name(port), token.reveal())
}

/// What every answer carries: nothing from elsewhere is loaded, run, framed or told, and nothing is
/// kept.
pub const HEADERS: [(&str, &str); 8] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(token: &Token, change: impl Fn(&mut Knock<'_>)) -> Verdict {
        let cookie = format!("other=1; crrl-dashboard-80={}", token.reveal());
        let mut knock = Knock {
            method: "GET",
            path: "/api/runs",
            host: Some("127.0.0.1:7000"),
            cookie: Some(&cookie),
            ..Knock::default()
        };
        change(&mut knock);
        judge(&knock, token, "crrl-dashboard-80")
    }

    #[test]
    fn only_the_token_opens() {
        let token = Token::draw().expect("entropy");
        let bearer: &'static str = format!("Bearer {}", token.reveal()).leak();
        let query: &'static str = format!("a=b&token={}", token.reveal()).leak();
        let wrong: &'static str = format!("Bearer {}0", token.reveal()).leak();
        assert_eq!(at(&token, |_| {}), Verdict::Enter);
        assert_eq!(at(&token, |k| k.cookie = None), Verdict::NoToken);
        assert_eq!(at(&token, |k| k.cookie = Some("crrl-dashboard-80=")), Verdict::NoToken);
        for (authorization, verdict) in [(bearer, Verdict::Enter), (wrong, Verdict::NoToken)] {
            let got = at(&token, |k| {
                k.cookie = None;
                k.authorization = Some(authorization);
            });
            assert_eq!(got, verdict);
        }
        for (path, verdict) in [("/", Verdict::Greet), ("/api/runs", Verdict::NoToken)] {
            let got = at(&token, |k| {
                k.cookie = None;
                k.path = path;
                k.query = Some(query);
            });
            assert_eq!(got, verdict, "an address opens the page and nothing else: {path}");
        }
    }

    #[test]
    fn a_rebound_name_another_site_and_other_methods_fail_even_with_the_token() {
        let token = Token::draw().expect("entropy");
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.:80",
            "[::1]:80",
            "",
            "localhost:x",
        ] {
            assert_eq!(at(&token, |k| k.host = Some(host)), Verdict::WrongHost, "{host}");
        }
        assert_eq!(at(&token, |k| k.host = None), Verdict::WrongHost);
        assert_eq!(at(&token, |k| k.host = Some("localhost:9")), Verdict::Enter);
        for origin in ["http://evil.example", "null", "https://127.0.0.1.evil.example"] {
            assert_eq!(at(&token, |k| k.origin = Some(origin)), Verdict::WrongOrigin, "{origin}");
        }
        assert_eq!(at(&token, |k| k.origin = Some("http://127.0.0.1:7000")), Verdict::Enter);
        assert_eq!(at(&token, |k| k.method = "POST"), Verdict::WrongMethod);
    }
}
