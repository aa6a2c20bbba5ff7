// Prints the events of a stream, as the package eventsource gives them to a program.
import { EventSource } from 'eventsource'

const stream = new EventSource(process.argv[2])
for (const name of ['task', 'gap', 'cursor']) {
  stream.addEventListener(name, ({ data }) => console.log(name, data))
}
stream.addEventListener('message', ({ data }) => console.log('unnamed', data))
stream.addEventListener('error', () => {
  if (stream.readyState === EventSource.CLOSED) console.log('closed')
})
