//! Path and method decide which handler a request reaches.

use reqwest::Method;

use crate::support::Fixture;

#[tokio::test]
async fn path_without_a_route_for_its_method_is_a_problem() {
    let fixture = Fixture::start().await;
    for (method, path, status, code) in [
        (Method::GET, "/tasks/batch", 405, "method_not_allowed"),
        (Method::PUT, "/tasks/x", 405, "method_not_allowed"),
        (Method::GET, "/tasks/", 404, "route_not_found"),
        (Method::GET, "/tasks/x/y", 404, "route_not_found"),
        (Method::POST, "/tasks/x/y/cancel", 404, "route_not_found"),
        (Method::POST, "/tasks//cancel", 400, "invalid_id"),
        (Method::GET, "/queues/%61", 404, "queue_not_found"),
        (Method::GET, "/queues/a%2Fb", 422, "invalid_queue"),
        (Method::GET, "/queues/%ff", 404, "route_not_found"),
    ] {
        let answer = fixture.http.send(method.clone(), path, &[], None).await;
        assert_eq!(answer.problem(status).0, code, "{method} {path}");
    }
    for (path, allowed) in [("/tasks", "POST,GET,HEAD"), ("/tasks/x", "GET,HEAD,DELETE"), ("/tasks/batch", "POST")] {
        let answer = fixture.http.send(Method::OPTIONS, path, &[], None).await;
        assert_eq!(answer.problem(405).0, "method_not_allowed");
        assert_eq!(answer.header("allow").unwrap(), allowed, "{path}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn response_to_head_is_that_to_get_without_its_body() {
    let fixture = Fixture::start().await;
    for path in ["/livez", "/tasks/x", "/nowhere"] {
        let [get, head] = [Method::GET, Method::HEAD].map(|method| {
            let url = format!("http://{}{path}", fixture.http.address);
            reqwest::Client::new().request(method, url).header("x-request-id", "same").send()
        });
        let (get, head) = (get.await.unwrap(), head.await.unwrap());
        assert_eq!(get.status(), head.status(), "{path}");
        for name in ["content-type", "content-length", "x-request-id"] {
            assert!(get.headers().contains_key(name), "{path}");
            assert_eq!(get.headers().get(name), head.headers().get(name), "{path}: {name}");
        }
        assert!(!get.text().await.unwrap().is_empty());
        assert_eq!(head.text().await.unwrap(), "");
    }
    fixture.end().await;
}
