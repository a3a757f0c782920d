use std::sync::Arc;
struct One;
impl bulkhead_aws_api::AccessKeys for One {
    fn secret(&self, id: &str) -> Option<String> {
        (id == "AKIDTEST").then(|| "secret".to_owned())
    }
}
#[tokio::main]
async fn main() {
    let path = std::env::args().nth(1).unwrap();
    let store = bulkhead_store::Embedded::open(std::path::Path::new(&path)).unwrap();
    let control = Arc::new(bulkhead_ecs::Control::new(Arc::new(store), Default::default()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:18080").await.unwrap();
    axum::serve(listener, bulkhead_aws_api::router(control, Arc::new(One))).await.unwrap();
}
