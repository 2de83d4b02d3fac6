import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Paths of PEM files. */
export interface Certificates {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });

/** Makes a certificate authority in `dir`, and with it a certificate for 127.0.0.1 that servers and clients can show. */
export function makeCertificates(dir: string, { days = 2 } = {}): Certificates {
  const at = (name: string) => join(dir, name);
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

  openssl(
    'req',
    '-x509',
    ...newKey,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-subj',
    '/CN=test CA',
    '-days',
    String(days),
  );
  openssl('req', ...newKey, '-keyout', at('key.pem'), '-out', at('cert.csr'), '-subj', '/CN=shipmate');
  writeFileSync(at('cert.ext'), 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n');
  signCertificate(dir, days);
  return { ca: at('ca.pem'), cert: at('cert.pem'), key: at('key.pem') };
}

/** Puts a certificate that has expired in the place of the one that `makeCertificates` made; servers show it from then on. */
export function expireCertificate(dir: string): void {
  signCertificate(dir, -1);
}

function signCertificate(dir: string, days: number): void {
  const at = (name: string) => join(dir, name);
  const signedBy = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', String(days)];
  openssl('x509', '-req', '-in', at('cert.csr'), ...signedBy, '-extfile', at('cert.ext'), '-out', at('cert.pem'));
}
