//! Copies a picture between the memory layouts of two drivers, without I/O.
//!
//! Linux Media Infrastructure userspace API, "YUV formats". Drivers differ in the length of a row
//! and in the number of rows in a plane. Only the visible part is copied.

use v4l2r::{Format, PixelFormat};

/// Returns the size of each component of a picture: bytes per row, and number of rows.
pub fn components(format: PixelFormat, width: u32, height: u32) -> Vec<(usize, usize)> {
    let (width, height) = (width as usize, height as usize);
    match &format.to_fourcc() {
        // Luma, then both chroma components interleaved, in half as many rows.
        b"NV12" | b"NM12" => vec![(width, height), (width, height / 2)],
        // Luma, then each chroma component, in half the width and height.
        b"YU12" | b"YM12" => {
            vec![(width, height), (width / 2, height / 2), (width / 2, height / 2)]
        }
        // Two bytes per pixel.
        _ => vec![(2 * width, height)],
    }
}

/// Returns the location of each component: plane, offset, and bytes from one row to the next.
fn locations(format: &Format) -> Vec<(usize, usize, usize)> {
    let parts = components(format.pixelformat, format.width, format.height);
    let line = |plane: usize| format.plane_fmt.get(plane).map_or(0, |p| p.bytesperline as usize);
    let is_multiplanar = format.plane_fmt.len() > 1;
    let mut offset = 0;
    let first = parts[0].0.max(1);
    let location = |(n, (row, rows)): (usize, &(usize, usize))| {
        if is_multiplanar {
            return (n, 0, line(n).max(*row));
        }
        // The rows of a smaller component are proportionally shorter.
        let stride = (line(0) * row / first).max(*row);
        let at = offset;
        offset += stride * rows;
        (0, at, stride)
    };
    parts.iter().enumerate().map(location).collect()
}

/// Copies the part of the picture that fits into both formats. Buffers may be shorter than their
/// format requires; missing parts are skipped.
pub fn copy(source: &[&[u8]], from: &Format, target: &mut [&mut [u8]], to: &Format) {
    let (width, height) = (from.width.min(to.width), from.height.min(to.height));
    let parts = components(from.pixelformat, width, height);
    for ((row, rows), (from, to)) in
        parts.into_iter().zip(locations(from).into_iter().zip(locations(to)))
    {
        let (Some(source), Some(target)) = (source.get(from.0), target.get_mut(to.0)) else {
            continue;
        };
        let source = source.get(from.1..).unwrap_or_default().chunks(from.2);
        let target = target.get_mut(to.1..).unwrap_or_default().chunks_mut(to.2);
        for (source, target) in source.zip(target).take(rows) {
            let row = row.min(source.len()).min(target.len());
            target[..row].copy_from_slice(&source[..row]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v4l2r::PlaneLayout;

    fn format(fourcc: &[u8; 4], size: (u32, u32), lines: &[u32]) -> Format {
        let plane = |&bytesperline| PlaneLayout { sizeimage: 0, bytesperline };
        Format {
            width: size.0,
            height: size.1,
            pixelformat: fourcc.into(),
            plane_fmt: lines.iter().map(plane).collect(),
        }
    }

    #[test]
    fn adapts_to_longer_and_additional_rows() {
        // From 4x2 with rows of 4 bytes to 4x4 with rows of 6 bytes.
        let from = format(b"NV12", (4, 2), &[4]);
        let to = format(b"NV12", (4, 4), &[6]);
        let source = b"abcdefghUVUV";
        let mut target = vec![b'.'; 6 * 4 + 6 * 2];
        copy(&[source], &from, &mut [&mut target], &to);
        assert_eq!(target, b"abcd..efgh..............UVUV........");

        let from = format(b"YU12", (4, 2), &[4]);
        let to = format(b"YU12", (4, 2), &[8]);
        let mut target = vec![b'.'; 8 * 2 + 4 + 4];
        copy(&[b"abcdefghUUVV"], &from, &mut [&mut target], &to);
        assert_eq!(target, b"abcd....efgh....UU..VV..");
    }

    #[test]
    fn copies_separate_planes() {
        let from = format(b"NM12", (4, 2), &[4, 4]);
        let to = format(b"NM12", (4, 2), &[5, 6]);
        let (mut y, mut c) = (vec![b'.'; 10], vec![b'.'; 6]);
        copy(&[b"abcdefgh", b"UVUV"], &from, &mut [&mut y, &mut c], &to);
        assert_eq!((&y[..], &c[..]), (&b"abcd.efgh."[..], &b"UVUV.."[..]));
    }

    #[test]
    fn copies_packed_formats() {
        let from = format(b"YUYV", (2, 2), &[6]);
        let to = format(b"YUYV", (2, 2), &[4]);
        let mut target = vec![b'.'; 8];
        copy(&[b"abcd..efgh.."], &from, &mut [&mut target], &to);
        assert_eq!(target, b"abcdefgh");
    }

    #[test]
    fn tolerates_short_buffers() {
        let from = format(b"NV12", (4, 2), &[4]);
        let mut target = vec![b'.'; 7];
        copy(&[b"abcdef"], &from, &mut [&mut target], &from);
        assert_eq!(target, b"abcdef.");
        copy(&[], &from, &mut [], &from);
    }
}
