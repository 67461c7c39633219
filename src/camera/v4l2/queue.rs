//! A queue of buffers exchanged with a driver.
//!
//! Linux Media Infrastructure userspace API, "Streaming I/O". The buffers are either mapped when
//! the queue is created, or belong to another driver (DMA-BUF).

use crate::camera::error::SourceError;
use crate::camera::v4l2::node::Node;
use rustix::io::Errno;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;
use v4l2r::bindings::timeval;
use v4l2r::ioctl::{
    BufferFlags, ExpbufFlags, IntoErrno, MemoryConsistency, PlaneMapping, QueryBuffer,
    UncheckedV4l2Buffer,
};
use v4l2r::memory::MemoryType;
use v4l2r::{QueueType, ioctl};

/// Number of buffers: one being read, one being filled, and two in reserve in case the thread is
/// scheduled late (66 ms at 30 frames per second).
pub const BUFFER_COUNT: u32 = 4;

/// A device's buffer queue. Dropping it stops the stream and frees the buffers.
pub struct Queue<'a> {
    node: &'a Node,
    kind: QueueType,
    memory: MemoryType,
    /// Mappings by buffer and plane; empty if the memory belongs to another driver.
    buffers: Vec<Vec<PlaneMapping>>,
    count: u32,
}

/// A buffer that the driver has returned.
#[derive(Debug, Clone, Copy)]
pub struct Filled {
    /// Index of the buffer.
    pub index: u32,
    /// Number of bytes used in each plane.
    pub used: [usize; 8],
    /// Whether the driver reports that the content is damaged.
    pub damaged: bool,
    /// Whether this is the last buffer of the stream.
    pub last: bool,
    /// Capture time on the monotonic clock; `None` if the driver uses a different clock.
    pub time: Option<Duration>,
    /// Capture time as the driver reports it, to pass to the next driver.
    pub timestamp: timeval,
}

/// The content of a buffer for the driver to read.
pub struct Content<'a> {
    /// Number of bytes used in each plane.
    pub used: &'a [usize],
    /// Capture time.
    pub timestamp: timeval,
    /// Memory of another driver: descriptor and length in bytes of each plane.
    pub memory: Option<&'a [(RawFd, usize)]>,
}

impl<'a> Queue<'a> {
    /// Allocates `count` buffers and maps them. The driver may allocate more or fewer.
    ///
    /// # Errors
    ///
    /// The driver cannot allocate buffers, or the device is busy or unplugged.
    pub fn map(node: &'a Node, kind: QueueType, count: u32) -> Result<Queue<'a>, SourceError> {
        let mut queue = Queue::request(node, kind, MemoryType::Mmap, count)?;
        for index in 0..queue.count as usize {
            let buffer: QueryBuffer = ioctl::querybuf(&node.file, kind, index)
                .map_err(|error| node.error("query its buffers", error))?;
            let planes = buffer.planes.iter().map(|plane| {
                ioctl::mmap(&node.file, plane.mem_offset, plane.length)
                    .map_err(|error| node.error("map its buffers", error))
            });
            let planes = planes.collect::<Result<_, _>>()?;
            queue.buffers.push(planes);
        }
        Ok(queue)
    }

    /// Requests `count` buffers whose memory belongs to another driver.
    ///
    /// # Errors
    ///
    /// The driver does not support DMA-BUF, or the device is busy or unplugged.
    pub fn import(node: &'a Node, kind: QueueType, count: u32) -> Result<Queue<'a>, SourceError> {
        Queue::request(node, kind, MemoryType::DmaBuf, count)
    }

    fn request(
        node: &'a Node,
        kind: QueueType,
        memory: MemoryType,
        count: u32,
    ) -> Result<Queue<'a>, SourceError> {
        let count: usize =
            ioctl::reqbufs(&node.file, kind, memory, count, MemoryConsistency::empty())
                .map_err(|error| node.error("allocate buffers", error))?;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let queue = Queue { node, kind, memory, buffers: vec![], count };
        match count {
            0 => Err(SourceError::Unusable {
                device: node.path.clone(),
                reason: "the driver allocated no buffers".into(),
            }),
            _ => Ok(queue),
        }
    }

    /// Returns the number of buffers.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the content of a plane in a buffer. It is empty if the buffer is not mapped.
    pub fn plane(&self, index: u32, plane: usize) -> &[u8] {
        self.buffers.get(index as usize).and_then(|b| b.get(plane)).map_or(&[], |p| &p[..])
    }

    /// Returns the planes of a buffer, for writing.
    pub fn planes_mut(&mut self, index: u32) -> &mut [PlaneMapping] {
        self.buffers.get_mut(index as usize).map_or(&mut [], |planes| &mut planes[..])
    }

    /// Exports the planes of each buffer as DMA-BUF descriptors, with their lengths in bytes.
    ///
    /// # Errors
    ///
    /// The driver does not support DMA-BUF.
    pub fn export(&self) -> Result<Vec<Vec<(OwnedFd, usize)>>, SourceError> {
        let export = |index: usize, plane: usize, len: usize| {
            let flags = ExpbufFlags::CLOEXEC | ExpbufFlags::RDWR;
            ioctl::expbuf(&self.node.file, self.kind, index, plane, flags)
                .map(|fd: OwnedFd| (fd, len))
                .map_err(|error| self.node.error("export its buffers", error))
        };
        let planes = |(index, planes): (usize, &Vec<PlaneMapping>)| {
            planes.iter().enumerate().map(|(n, plane)| export(index, n, plane.size())).collect()
        };
        self.buffers.iter().enumerate().map(planes).collect()
    }

    /// Passes an empty buffer to the driver.
    ///
    /// # Errors
    ///
    /// The driver rejects the buffer.
    pub fn enqueue(&self, index: u32) -> Result<(), SourceError> {
        self.qbuf(index, None).map_err(|error| self.node.error("enqueue a buffer", error))
    }

    /// Passes all buffers to the driver.
    ///
    /// # Errors
    ///
    /// The driver rejects a buffer.
    pub fn enqueue_all(&self) -> Result<(), SourceError> {
        (0..self.count).try_for_each(|index| self.enqueue(index))
    }

    /// Passes a full buffer to the driver.
    ///
    /// # Errors
    ///
    /// The driver rejects the buffer.
    pub fn enqueue_content(&self, index: u32, content: &Content<'_>) -> Result<(), Errno> {
        self.qbuf(index, Some(content))
            .map_err(|error| Errno::from_raw_os_error(error.into_errno()))
    }

    fn qbuf(&self, index: u32, content: Option<&Content<'_>>) -> Result<(), impl IntoErrno> {
        let mut buffer = UncheckedV4l2Buffer::new_for_querybuf(self.kind, Some(index));
        let (raw, planes) = (&mut buffer.0, &mut buffer.1);
        raw.memory = self.memory as u32;
        if let Some(planes) = planes {
            raw.length = content.map_or_else(
                || self.buffers.get(index as usize).map_or(1, Vec::len),
                |content| content.used.len(),
            ) as u32;
            if let Some(content) = content {
                for (n, used) in content.used.iter().enumerate() {
                    planes[n].bytesused = *used as u32;
                    if let Some(memory) = content.memory {
                        planes[n].m.fd = memory[n].0;
                        planes[n].length = memory[n].1 as u32;
                    }
                }
            }
        } else if let Some(content) = content {
            raw.bytesused = content.used[0] as u32;
            if let Some(memory) = content.memory {
                raw.m.fd = memory[0].0;
                raw.length = memory[0].1 as u32;
            }
        }
        if let Some(content) = content {
            raw.timestamp = content.timestamp;
        }
        ioctl::qbuf::<_, ()>(&self.node.file, buffer)
    }

    /// Takes back a buffer from the driver. Returns `None` if none is ready.
    ///
    /// # Errors
    ///
    /// The transfer failed, or the device was unplugged.
    pub fn dequeue(&self) -> Result<Option<Filled>, SourceError> {
        let buffer: UncheckedV4l2Buffer = match ioctl::dqbuf(&self.node.file, self.kind) {
            Ok(buffer) => buffer,
            Err(error) => match Errno::from_raw_os_error(error.into_errno()) {
                Errno::AGAIN | Errno::INTR => return Ok(None),
                Errno::IO => {
                    return Err(SourceError::Transfer {
                        device: self.node.path.clone(),
                        reason: "the transfer of frames failed (I/O error)".into(),
                    });
                }
                errno => return Err(self.node.errno("capture a picture", errno)),
            },
        };
        let (raw, planes) = (buffer.0, buffer.1);
        let mut used = [0; 8];
        match planes {
            Some(planes) => {
                for (used, plane) in used.iter_mut().zip(&planes[..]).take(raw.length as usize) {
                    *used = plane.bytesused as usize;
                }
            }
            None => used[0] = raw.bytesused as usize,
        }
        let flags = BufferFlags::from_bits_truncate(raw.flags);
        // Copied timestamps use the clock of the driver that created them. Zero means no timestamp.
        let is_monotonic = BufferFlags::TIMESTAMP_MONOTONIC | BufferFlags::TIMESTAMP_COPY;
        let time = Duration::from_secs(u64::try_from(raw.timestamp.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(raw.timestamp.tv_usec).unwrap_or(0));
        Ok(Some(Filled {
            index: raw.index,
            used,
            damaged: flags.contains(BufferFlags::ERROR),
            last: flags.contains(BufferFlags::LAST),
            time: Some(time).filter(|time| flags.intersects(is_monotonic) && !time.is_zero()),
            timestamp: raw.timestamp,
        }))
    }

    /// Starts streaming.
    ///
    /// # Errors
    ///
    /// The driver cannot start streaming, for example because the USB bus has too little bandwidth
    /// left or the device was unplugged.
    pub fn start(&self) -> Result<(), SourceError> {
        ioctl::streamon(&self.node.file, self.kind)
            .map_err(|error| self.node.error("start streaming", error))
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // Fails if the device was unplugged. In this case, the kernel has already freed its
        // buffers.
        let _ = ioctl::streamoff(&self.node.file, self.kind);
        self.buffers.clear();
        let none = MemoryConsistency::empty();
        let _: Result<usize, _> = ioctl::reqbufs(&self.node.file, self.kind, self.memory, 0, none);
    }
}

/// Returns the descriptors as numbers. They are valid as long as `planes` exists.
pub fn raw_descriptors(planes: &[(OwnedFd, usize)]) -> Vec<(RawFd, usize)> {
    planes.iter().map(|(fd, len)| (fd.as_raw_fd(), *len)).collect()
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};
    use v4l2r::bindings::*;

    /// The request codes contain the sizes (ioctl_list(2)): VIDIOC_QBUF is 0xc058560f on 64-bit
    /// machines and 0xc044560f on 32-bit machines, so its structure has 0x58 or 0x44 bytes.
    #[test]
    fn structures_match_the_kernel_layout() {
        let is_64_bit = cfg!(target_pointer_width = "64");
        let size = |name: &str, actual: usize, on_64: usize, on_32: usize| {
            assert_eq!(actual, if is_64_bit { on_64 } else { on_32 }, "{name}");
        };
        size("v4l2_buffer", size_of::<v4l2_buffer>(), 0x58, 0x44);
        size("v4l2_format", size_of::<v4l2_format>(), 0xd0, 0xcc);
        size("v4l2_ext_controls", size_of::<v4l2_ext_controls>(), 0x20, 0x18);
        size("v4l2_plane", size_of::<v4l2_plane>(), 64, 60);
        // Structures without pointers have the same size on all machines.
        size("v4l2_capability", size_of::<v4l2_capability>(), 0x68, 0x68);
        size("v4l2_fmtdesc", size_of::<v4l2_fmtdesc>(), 0x40, 0x40);
        size("v4l2_requestbuffers", size_of::<v4l2_requestbuffers>(), 0x14, 0x14);
        size("v4l2_exportbuffer", size_of::<v4l2_exportbuffer>(), 0x40, 0x40);
        size("v4l2_streamparm", size_of::<v4l2_streamparm>(), 0xcc, 0xcc);
        size("v4l2_control", size_of::<v4l2_control>(), 8, 8);
        size("v4l2_queryctrl", size_of::<v4l2_queryctrl>(), 0x44, 0x44);
        size("v4l2_encoder_cmd", size_of::<v4l2_encoder_cmd>(), 0x28, 0x28);
        size("v4l2_selection", size_of::<v4l2_selection>(), 0x40, 0x40);
        size("v4l2_frmsizeenum", size_of::<v4l2_frmsizeenum>(), 0x2c, 0x2c);
        size("v4l2_frmivalenum", size_of::<v4l2_frmivalenum>(), 0x34, 0x34);
        // Fields of a buffer.
        size("bytesused", offset_of!(v4l2_buffer, bytesused), 8, 8);
        size("timestamp", offset_of!(v4l2_buffer, timestamp), 24, 20);
        size("m", offset_of!(v4l2_buffer, m), 64, 52);
        size("length", offset_of!(v4l2_buffer, length), 72, 56);
    }
}
