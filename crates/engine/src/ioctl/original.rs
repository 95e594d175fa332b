//! The four requests of the original protocol, and with its option two fills.
//!
//! Kernel counterpart: `UFFDIO_API`, `REGISTER`, `UNREGISTER`, `WAKE` as of May 2015.

use userfault_abi::errno::Errno;
use userfault_abi::structs;
use userfault_abi::{CopyModes, Features, IoctlMask, RegisterModes, ZeropageModes, original, request};

use crate::context::handshake::HandshakeError;
use crate::context::{ContextId, Rules};
use crate::error::errno;
use crate::fill::Fill;
use crate::host::Embedder;
use crate::ioctl::{Call, Reply, refuse_handshake};
use crate::space::AddressSpace;

impl<E: Embedder> AddressSpace<E> {
    pub(super) fn parse_original(
        &self,
        context: ContextId,
        rules: Rules,
        request: u32,
        input: &[u8],
    ) -> Result<Call, Reply> {
        let bad_address = || Reply::refused(Errno::EFAULT);
        let invalid = |_| Reply::refused(Errno::EINVAL);
        match request {
            request::API => self.original_api(context, input),
            request::REGISTER => {
                let argument = structs::Register::decode(input).ok_or_else(bad_address)?;
                let modes = RegisterModes::from_bits(argument.mode);
                if modes.is_empty() || !modes.difference(rules.modes).is_empty() {
                    return Err(Reply::refused(Errno::EINVAL));
                }
                let range = self.parse_range(rules, argument.range.start, argument.range.len).map_err(invalid)?;
                Ok(Call::Register { range, modes })
            }
            request::UNREGISTER | request::WAKE => {
                let argument = structs::Range::decode(input).ok_or_else(bad_address)?;
                let range = self.parse_range(rules, argument.start, argument.len).map_err(invalid)?;
                Ok(if request == request::WAKE { Call::Wake { range } } else { Call::Unregister { range } })
            }
            request::COPY if rules.fills.contains(IoctlMask::COPY) => {
                let argument = structs::Copy::decode(input).ok_or_else(bad_address)?;
                let range = self.parse_range(rules, argument.dst, argument.len).map_err(invalid)?;
                let modes = CopyModes::from_bits(argument.mode);
                if !modes.difference(CopyModes::DONTWAKE).is_empty() {
                    return Err(Reply::refused(Errno::EINVAL));
                }
                Ok(Call::Fill { range, fill: Fill::Copy(modes), source: argument.src })
            }
            request::ZEROPAGE if rules.fills.contains(IoctlMask::ZEROPAGE) => {
                let argument = structs::Zeropage::decode(input).ok_or_else(bad_address)?;
                let range = self.parse_range(rules, argument.range.start, argument.range.len).map_err(invalid)?;
                let modes = ZeropageModes::from_bits(argument.mode);
                if !modes.difference(ZeropageModes::DONTWAKE).is_empty() {
                    return Err(Reply::refused(Errno::EINVAL));
                }
                Ok(Call::Fill { range, fill: Fill::Zeropage(modes), source: 0 })
            }
            _ => Err(Reply::refused(Errno::EINVAL)),
        }
    }

    fn original_api(&self, context: ContextId, input: &[u8]) -> Result<Call, Reply> {
        let version = input.first_chunk::<{ original::API_INPUT }>().map(|bytes| u64::from_ne_bytes(*bytes));
        // The state comes before the argument, so an unreadable one is looked at only afterwards:
        // a version that cannot match stands in for it.
        let unreadable = version.is_none();
        match self.begin_handshake(context, version.unwrap_or(0), Features::NONE) {
            Ok(offer) => Ok(Call::Api(offer)),
            Err(HandshakeError::WrongVersion) if unreadable => Err(Reply::refused(Errno::EFAULT)),
            Err(error @ (HandshakeError::Gone | HandshakeError::AlreadyDone)) => Err(refuse_handshake(error, true)),
            Err(error) => {
                debug_assert_eq!(errno(error), Errno::EINVAL, "o/api/mismatch");
                Err(refuse_handshake(error, true))
            }
        }
    }
}
