//! The operations under both prefixes of the API, in one table of routes.
//!
//! Nested routers would answer the same, but each of them takes the address of a request apart and puts the rest of it
//! together again. Here every operation is found by its whole path, once.

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use poem::{
    Endpoint, Request, Response, Result, Route,
    endpoint::{BoxEndpoint, DynEndpoint},
    http::Method,
};
use poem_openapi::{
    OpenApi,
    registry::{MetaApi, Registry},
};

/// The canonical prefix, and the one that serves the same routes.
const PREFIXES: [&str; 2] = ["/api/v1", "/api"];

/// Operations that are answered under each prefix; their document has none.
pub(crate) struct Prefixed<T>(pub(crate) T);

impl<T: OpenApi> OpenApi for Prefixed<T> {
    fn meta() -> Vec<MetaApi> {
        T::meta()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn add_routes(self, table: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {
        let mut own = HashMap::new();
        self.0.add_routes(&mut own);
        for (path, operations) in own {
            for (method, operation) in operations {
                let operation: Arc<dyn DynEndpoint<Output = Response>> = Arc::from(operation);
                for prefix in PREFIXES {
                    let shared: BoxEndpoint<'static> = Box::new(Shared(Arc::clone(&operation)));
                    table.entry(format!("{prefix}{path}")).or_default().insert(method.clone(), shared);
                }
            }
        }
    }
}

/// The same operation at several places.
struct Shared(Arc<dyn DynEndpoint<Output = Response>>);

impl DynEndpoint for Shared {
    type Output = Response;

    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        DynEndpoint::call(&*self.0, request)
    }
}

/// Where every request comes in: what is under a prefix goes to the operations, the rest to the other routes.
pub(crate) struct Entrance {
    pub(crate) operations: BoxEndpoint<'static>,
    pub(crate) others: Route,
}

impl Endpoint for Entrance {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        // The shorter prefix is the beginning of both.
        if request.uri().path().starts_with("/api/") {
            DynEndpoint::call(&*self.operations, request).await
        } else {
            self.others.call(request).await
        }
    }
}
