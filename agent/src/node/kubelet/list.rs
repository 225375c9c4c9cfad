//! Reads the answer of a kubelet's pod-resources API: of `ListPodResourcesResponse` only which container has which GPU. Field numbers are those of
//! `k8s.io/kubelet/pkg/apis/podresources/v1/api.proto`; the encoding is protobuf's (<https://protobuf.dev/programming-guides/encoding/>).

use protocol::node::PodDevices;

/// The longest name of a pod, container or device that is taken.
const LONGEST_NAME: usize = 512;
/// Resources whose devices are GPUs, whatever the plugin was told to call them; and how it names the devices themselves.
const DOMAIN: &str = "nvidia.com/";
const PREFIXES: [&str; 2] = ["GPU-", "MIG-"];

/// Bytes that are no such answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its list of pods is malformed: {0}")]
pub struct Malformed(&'static str);

/// Every container that has GPUs, in order.
pub fn gpus(message: &[u8]) -> Result<Vec<PodDevices>, Malformed> {
    let mut found = vec![];
    for pod in messages(message, 1) {
        let pod = pod?;
        for container in messages(pod, 3) {
            let container = container?;
            let mut held = vec![];
            for devices in messages(container, 2) {
                let devices = devices?;
                let resource = text(devices, 1)?;
                for id in messages(devices, 2) {
                    let id = name(id?)?;
                    if resource.starts_with(DOMAIN) || PREFIXES.iter().any(|prefix| id.starts_with(prefix)) {
                        held.push(id.to_owned());
                    }
                }
            }
            if !held.is_empty() {
                held.sort();
                found.push(PodDevices {
                    namespace: text(pod, 2)?.to_owned(),
                    pod: text(pod, 1)?.to_owned(),
                    container: text(container, 1)?.to_owned(),
                    devices: held,
                });
            }
        }
    }
    // The same list is the same value, in whichever order the kubelet has its pods.
    found.sort();
    Ok(found)
}

fn name(bytes: &[u8]) -> Result<&str, Malformed> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= LONGEST_NAME => Ok(text),
        Ok(_) => Err(Malformed("a name is too long")),
        Err(_) => Err(Malformed("a name is no text")),
    }
}

/// The last value of a field, which is the one that counts; empty where it is left out.
fn text(message: &[u8], number: u64) -> Result<&str, Malformed> {
    let mut last = "";
    for value in messages(message, number) {
        last = name(value?)?;
    }
    Ok(last)
}

/// The values of a field of bytes, one after the other; other fields are passed over.
fn messages(message: &[u8], number: u64) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    let mut rest = Fields(message);
    std::iter::from_fn(move || {
        loop {
            match rest.next() {
                Ok(None) => return None,
                Ok(Some(Field { number: found, bytes: Some(value) })) if found == number => return Some(Ok(value)),
                Ok(Some(_)) => {}
                Err(malformed) => {
                    rest = Fields(&[]);
                    return Some(Err(malformed));
                }
            }
        }
    })
}

/// A field, with its value if that is bytes.
struct Field<'m> {
    number: u64,
    bytes: Option<&'m [u8]>,
}

struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn next(&mut self) -> Result<Option<Field<'m>>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let bytes = match key & 7 {
            0 => {
                self.varint()?;
                None
            }
            1 => {
                self.take(8)?;
                None
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed("it is cut short"))?;
                Some(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                None
            }
            _ => return Err(Malformed("a field of no known kind")),
        };
        Ok(Some(Field { number: key >> 3, bytes }))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take(1)? else { return Err(Malformed("it is cut short")) };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    fn take(&mut self, count: usize) -> Result<&'m [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A field of bytes, as protobuf writes it.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = value.len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(value);
        bytes
    }

    fn devices(resource: &str, ids: &[&str]) -> Vec<u8> {
        let ids = ids.iter().flat_map(|id| field(2, id.as_bytes()));
        // A topology, with a node of it, is passed over.
        let topology = field(3, &field(1, &[0x08, 0x01]));
        field(2, &[field(1, resource.as_bytes()), ids.collect(), topology].concat())
    }

    fn container(name: &str, devices: &[Vec<u8>]) -> Vec<u8> {
        // Cpu ids are packed numbers; memory is a message.
        let rest = [field(3, &[0, 1, 2, 0x80, 0x01]), field(4, &field(1, b"memory"))].concat();
        field(3, &[field(1, name.as_bytes()), devices.concat(), rest].concat())
    }

    fn pod(namespace: &str, name: &str, containers: &[Vec<u8>]) -> Vec<u8> {
        let pod = [field(1, name.as_bytes()), field(2, namespace.as_bytes()), containers.concat()].concat();
        field(1, &pod)
    }

    fn has(namespace: &str, pod: &str, container: &str, devices: &[&str]) -> PodDevices {
        let devices = devices.iter().map(|id| (*id).to_owned()).collect();
        PodDevices { namespace: namespace.into(), pod: pod.into(), container: container.into(), devices }
    }

    #[test]
    fn bytes_as_a_kubelet_sends_them_are_read() {
        // One pod as kubelet v1.34 encodes it, byte for byte.
        let bytes = b"\x0a\x2f\x0a\x05one-0\x12\x01d\x1a\x23\x0a\x01c\x12\x1e\
            \x0a\x0envidia.com/gpu\x12\x05GPU-3\x1a\x05\x0a\x03\x08\xe7\x07";
        assert_eq!(gpus(bytes).unwrap(), [has("d", "one-0", "c", &["GPU-3"])]);
        assert_eq!(gpus(b"").unwrap(), []);
    }

    #[test]
    fn only_gpus_count_under_whichever_name_and_in_a_fixed_order() {
        let answer = [
            pod("b", "shared", &[container("c", &[devices("nvidia.com/gpu.shared", &["GPU-1::3", "GPU-1::0"])])]),
            pod("a", "none", &[container("c", &[devices("example.com/nic", &["nic-0"])])]),
            pod(
                "a",
                "two",
                &[
                    container("y", &[devices("nvidia.com/mig-1g.10gb", &["MIG-7"]), devices("nvidia.com/gpu", &["0"])]),
                    container("x", &[devices("example.com/renamed", &["GPU-5"])]),
                ],
            ),
        ];
        let expected = [
            has("a", "two", "x", &["GPU-5"]),
            has("a", "two", "y", &["0", "MIG-7"]),
            has("b", "shared", "c", &["GPU-1::0", "GPU-1::3"]),
        ];
        assert_eq!(gpus(&answer.concat()).unwrap(), expected);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let whole = pod("a", "p", &[container("c", &[devices("nvidia.com/gpu", &["GPU-1"])])]);
        for cut in 1..whole.len() {
            assert!(gpus(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(gpus(&[0x0b]).is_err(), "a group");
        assert!(gpus(&[0xff; 11]).is_err(), "a number without an end");
        let long = "x".repeat(LONGEST_NAME + 1);
        assert!(gpus(&pod("a", &long, &[container("c", &[devices("nvidia.com/gpu", &["GPU-1"])])])).is_err());
        assert!(gpus(&pod("a", "p", &[container("c", &[field(2, &field(2, &[0xff]))])])).is_err(), "no text");
    }

    proptest! {
        /// Whatever bytes come, the answer is a list or an error.
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = gpus(&bytes);
        }
    }
}
