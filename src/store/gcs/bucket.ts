/** Paths of the JSON API's calls on one bucket and the objects in it. */
export class BucketPaths {
  readonly #bucket: string;
  /** With a `/` at its end, or empty. */
  readonly #prefix: string;

  constructor({ bucket, prefix }: { bucket: string; prefix: string }) {
    this.#bucket = encodeURIComponent(bucket);
    this.#prefix = prefix === '' ? '' : `${prefix}/`;
  }

  nameOf(key: string): string {
    return this.#prefix + key;
  }

  keyOf(name: string): string {
    return name.slice(this.#prefix.length);
  }

  /** The bucket itself, or what is below it. */
  bucket(query: string, below = ''): string {
    return `/storage/v1/b/${this.#bucket}${below}?${query}`;
  }

  objects(query: string): string {
    return this.bucket(query, '/o');
  }

  object(key: string, query = ''): string {
    return this.bucket(query, `/o/${encodeURIComponent(this.nameOf(key))}`);
  }

  /** A creation, in one go (`multipart`) or in several (`resumable`): done only if the name is free. */
  upload(key: string, uploadType: 'multipart' | 'resumable'): string {
    const name = encodeURIComponent(this.nameOf(key));
    const query = `uploadType=${uploadType}&name=${name}&ifGenerationMatch=0&fields=crc32c,size`;
    return `/upload/storage/v1/b/${this.#bucket}/o?${query}`;
  }
}
