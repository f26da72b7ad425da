//! The only `aya::Pod` implementations: what may cross the kernel boundary as bytes.

use crate::{event, flow, identity, matching, net, path, resolver, server_name};

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: repr(C), made of integers and arrays of integers, sizes asserted
            // beside each type to have no implicit padding; any bit pattern is valid.
            unsafe impl aya::Pod for $type {}
        )+
    };
}

pod!(
    identity::Tag,
    identity::RunRecord,
    identity::PolicyRecord,
    identity::EnrolRequest,
    matching::MatchSet,
    matching::MatchRule,
    matching::UserKey,
    matching::DelegateKey,
    path::TransitionKey,
    path::PathState,
    path::Position,
    path::PathRow,
    path::GlobState,
    path::StartKey,
    path::LinkKey,
    event::FoldKey,
    event::Fold,
    flow::FlowKey,
    flow::Flow,
    flow::NamedFlow,
    net::NetNode,
    net::PortSet,
    net::PortInterval,
    resolver::GrantKey,
    resolver::Grant,
    resolver::AskerKey,
    resolver::Asker,
    resolver::ResolverRecord,
    server_name::NameKey,
    resolver::GrantRanges,
);
