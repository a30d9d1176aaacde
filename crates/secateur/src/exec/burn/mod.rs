//! The engine on Burn: pure Rust on CPUs, and the road to accelerators.
//!
//! Values that depend on no trainable initializer and no tapped gradient live on the plain device;
//! Burn's autodiff records only what comes after them, and skips the gradients of operands that it
//! does not track. So a frozen layer costs no weight gradient, and the layers before the first
//! trainable one cost no backward pass at all.

mod apply;
mod arithmetic;
mod blocks;
mod conv;
mod linear;
pub(super) mod node;
mod norm;
mod pool;
mod reduce;
mod resize;
mod session;
mod shape;
mod value;

use self::session::BurnSession;
use super::{Engine, ExecError, Request, Session};
use ::burn::tensor::Device;

/// Where Burn computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BurnDevice {
    /// The processor, by Burn's `flex` backend.
    #[default]
    Cpu,
}

/// Runs graphs on Burn.
#[derive(Clone, Debug)]
pub struct BurnEngine {
    device: Device,
    name: &'static str,
}

impl BurnEngine {
    /// An engine on the processor.
    #[must_use]
    pub fn new() -> Self {
        Self::on(BurnDevice::Cpu)
    }

    /// An engine on `device`.
    #[must_use]
    pub fn on(device: BurnDevice) -> Self {
        match device {
            BurnDevice::Cpu => Self {
                device: Device::flex(),
                name: "burn-cpu",
            },
        }
    }
}

impl Default for BurnEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine for BurnEngine {
    fn name(&self) -> &'static str {
        self.name
    }

    fn session<'a>(&'a self, request: &Request<'_>) -> Result<Box<dyn Session + 'a>, ExecError> {
        Ok(Box::new(BurnSession::new(self.device.clone(), request)?))
    }
}
